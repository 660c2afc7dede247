"""What the guides for operators say, read from their pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ACL_GUIDE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "lock-down-with-acls.md"


def rights_of_the_guide() -> list[str]:
    """The rules of the user ``shop`` for the namespace ``shop``, with the password ``password``."""
    found: list[str] = re.findall(r"^ACL SETUSER shop (.*)$", ACL_GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 1
    return found[0].split()


def more_rights(case: str) -> list[str]:
    """What the guide adds in some case."""
    found: list[str] = re.findall(rf"^\| {case} \| `(.*)` \|$", ACL_GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 1
    return found[0].replace("\\|", "|").split()
