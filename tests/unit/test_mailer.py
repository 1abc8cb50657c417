"""The login for a mail server is read from a private file."""

from __future__ import annotations

from pathlib import Path

import pytest

from grid.jobs import Settings
from grid.jobs.host.errors import JobError
from grid.jobs.mails.mailer import read_login


@pytest.mark.row("J12")
def test_a_password_is_read_from_a_private_file_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "login"
    file.write_text("grid\nsecret word\n")
    file.chmod(0o644)
    with pytest.raises(JobError, match="chmod 600"):
        read_login(str(file))
    file.chmod(0o600)
    assert read_login(str(file)) == ("grid", "secret word")
    file.write_text("hush-hush\n")
    with pytest.raises(JobError, match="two lines") as caught:
        read_login(str(file))
    assert "hush" not in str(caught.value)
    with pytest.raises(JobError, match="FileNotFound"):
        read_login(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="clear"):
        Settings(mail_host="mail.example", mail_login=str(file))
    for wrong in ({"mail_hour": 24}, {"mail_tls": "ssl"}):
        with pytest.raises(ValueError, match="mail_"):
            Settings(**wrong)  # type: ignore[arg-type]
