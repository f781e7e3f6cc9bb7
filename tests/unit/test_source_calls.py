"""What an app's own source asks of Base44 is counted, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from b44_assets.scaffold.files import FolderError
from b44_assets.scaffold.source_calls import calls_section, count_calls


@pytest.mark.parametrize(
    ("text", "kind", "which"),
    [
        ("await base44.entities.Post.list('-created_date')", "entities", "list"),
        ("base44.entities\n  .Post\n  .filter({a: 1})", "entities", "filter"),
        ("base44?.entities?.Post?.get(id)", "entities", "get"),
        ("client.entities.Post.create<Post>({})", "entities", "create"),
        ("base44.entities.Post.subscribe((e) => {})", "entities.….subscribe", "Post"),
        ("base44.asServiceRole.entities.Post.list()", "asServiceRole", ""),
        ("base44.functions.invoke('sendMail', {})", "functions.invoke", "sendMail"),
        ("base44.functions.invoke(name)", "functions.invoke", ""),
        ("base44.integrations.Core.UploadFile({ file })", "integrations", "Core.UploadFile"),
        ("const url = 'https://x'; base44.integrations.Core.InvokeLLM({})", "integrations", "Core.InvokeLLM"),
        ("base44.auth.me()", "auth", "me"),
        ("base44.agents.createConversation()", "agents", "createConversation"),
        ("await base44.entities[name].update(id, {})", "entities", "update"),
        ("base44.entities[name].subscribe(() => {})", "entities.….subscribe", ""),
        ("import { Post } from '@/entities/Post'; Post.list()", "entities", "list"),
        ('import {Post as P, X} from "../api/entities";\nP.filter({})', "entities", "filter"),
        ("import { Post } from '@/entities/all'; Post.subscribe(f)", "entities.….subscribe", "Post"),
        ("import { User } from '@/entities/User'; await User.me()", "auth", "me"),
        ("import { User } from '@/entities/User'; await User.list()", "entities", "list"),
        ("import { UploadFile } from '@/integrations/Core'; UploadFile({ file })", "integrations", "Core.UploadFile"),
        ("import { Core } from '@/api/integrations'; Core.InvokeLLM({})", "integrations", "Core.InvokeLLM"),
        ("import { sendMail } from '@/functions/sendMail'; sendMail({})", "functions.invoke", "sendMail"),
    ],
)
def test_a_call_is_counted_by_its_kind_and_name(tmp_path: Path, text: str, kind: str, which: str) -> None:
    (tmp_path / "a.tsx").write_text(text)
    calls = count_calls(tmp_path)
    assert calls.counts[kind] == {which: 1}
    assert calls.places[kind] == 1


@pytest.mark.parametrize(
    "text",
    [
        "// base44.entities.Post.list()",
        "/* base44.entities.Post\n.list() */",
        "base44.entities.Post",
        "store.subscribe(() => {})",
        "invoke('x')",
        "import { Post } from '@/entities/Post'; posts.list(); my.Post.list()",
        "import { Post } from '@/components/Post'; Post.list()",
    ],
)
def test_what_is_no_call_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.js").write_text(text)
    assert count_calls(tmp_path).total == 0


def test_packages_and_what_is_built_are_passed_over(tmp_path: Path) -> None:
    for name in ("node_modules/x/a.js", "dist/a.js", ".next/a.js", "src/a.min.js", "src/notes.md", "src/a.d.ts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("base44.entities.Post.list()")
    with pytest.raises(FolderError, match="holds no JavaScript"):
        count_calls(tmp_path)
    (tmp_path / "src" / "b.jsx").write_bytes(b"\xff base44.entities.Post.list()")
    assert (count_calls(tmp_path).files, count_calls(tmp_path).total) == (1, 1)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such folder"):
        count_calls(tmp_path / "x")


def test_the_section_names_the_most_frequent_first(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("entities.A.get(1); entities.A.list(); entities.B.list(); functions.invoke('x')")
    section = calls_section(count_calls(tmp_path))
    assert "In 1 file: 4 calls." in section
    assert "| `entities` | 3 | 1 | `list` 2, `get` 1 |" in section
    assert "| `functions.invoke` | 1 | 1 | `x` 1 |" in section
    assert "integrations" not in section.split("| --- |")[-1]
