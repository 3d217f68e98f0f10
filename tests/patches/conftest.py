from tests.trainers.kohya.conftest import sd_scripts, version_of, world  # noqa: F401 - the fixtures
