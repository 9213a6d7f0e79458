from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cache.encrypted_file import ENVIRONMENT_VARIABLE, WrongKeyError, read_key, seal, unseal
from engine.errors import EngineError

KEY = bytes(range(32))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "cache.key"
    path.write_text(KEY.hex() + "\n")
    path.chmod(0o600)
    return path


class TestKey:
    def test_it_comes_from_a_file(self, key_file: Path) -> None:
        assert read_key(key_file) == KEY

    def test_it_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, KEY.hex())
        assert read_key(None) == KEY

    def test_a_file_that_is_named_comes_first(
        self, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, bytes(32).hex())
        assert read_key(key_file) == KEY

    def test_without_one_the_error_says_where_it_may_be(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
        with pytest.raises(EngineError, match=r"needs a key: .*THRIFTPIPE_CACHE_KEY.*openssl rand"):
            read_key(None)

    @pytest.mark.parametrize("text", ["", "secret words", KEY.hex()[:-2], KEY.hex() + "00"])
    def test_what_is_no_key_is_refused_and_not_repeated(self, key_file: Path, text: str) -> None:
        key_file.write_text(text)
        with pytest.raises(EngineError, match="is not 64 hexadecimal digits") as caught:
            read_key(key_file)
        assert not text or text not in str(caught.value)

    def test_a_file_that_others_may_read_is_refused(self, key_file: Path) -> None:
        key_file.chmod(0o640)
        with pytest.raises(EngineError, match="chmod 600"):
            read_key(key_file)

    def test_a_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"cannot read the key file .*none: No such file"):
            read_key(tmp_path / "none")

    def test_a_file_that_is_not_text(self, key_file: Path) -> None:
        key_file.write_bytes(b"\xff\xfe")
        with pytest.raises(EngineError, match="is not text"):
            read_key(key_file)


class TestSealing:
    def test_what_was_sealed_is_opened_again(self) -> None:
        assert unseal(seal(b"weights", KEY, b"header"), KEY, b"header") == b"weights"

    def test_the_content_cannot_be_read_and_never_looks_the_same(self) -> None:
        first, second = (seal(b"weights" * 9, KEY, b"header") for _ in range(2))
        assert b"weights" not in first
        assert first != second

    def test_another_key_does_not_open_it(self) -> None:
        with pytest.raises(WrongKeyError, match="does not open"):
            unseal(seal(b"weights", KEY, b"header"), bytes(32), b"header")

    def test_another_header_does_not_open_it(self) -> None:
        with pytest.raises(WrongKeyError):
            unseal(seal(b"weights", KEY, b"header"), KEY, b"another")

    @pytest.mark.parametrize(
        "change",
        [
            lambda sealed: sealed[:-1],
            lambda sealed: sealed[:20],
            lambda sealed: sealed[:0],
            lambda sealed: sealed[:15] + bytes([sealed[15] ^ 1]) + sealed[16:],
        ],
    )
    def test_changed_bytes_do_not_open(self, change: Callable[[bytes], bytes]) -> None:
        with pytest.raises(WrongKeyError):
            unseal(change(seal(b"weights", KEY, b"header")), KEY, b"header")
