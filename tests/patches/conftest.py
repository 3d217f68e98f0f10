from tests.trainer.conftest import sd_scripts  # noqa: F401 - the fixture
