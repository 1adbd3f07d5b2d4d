"""A check without a browser must not look like one that passed."""

import pytest

from tests.browser.browsing import chromium


@pytest.mark.parametrize("ci", [True, False], ids=["in CI", "at a desk"])
def test_where_there_is_no_chromium_ci_fails_and_a_desk_skips(
    ci: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "CHROMIUM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    if ci:
        monkeypatch.setenv("CI", "true")
    kind = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(kind, match="apt-get install chromium"), chromium():
        pass
