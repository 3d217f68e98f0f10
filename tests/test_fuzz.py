"""A shorter form of benchmarks/fuzz.py."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests import fuzzing

pytest.importorskip("diffusers", reason='needs `pip install ".[builtin]"`')


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(fuzzing.cases())
def test_whatever_is_given_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch, case: fuzzing.Case) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    fuzzing.run(case)


def test_the_case_that_changes_nothing_fails_only_for_its_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    fuzzing.run(fuzzing.Case())
