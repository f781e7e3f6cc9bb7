"""What `b44 dev` says of a service that ends by itself."""

from __future__ import annotations

import pytest

from b44_assets.postgres.connect import connect
from b44_assets.runs import services as module
from b44_assets.runs.instance import runs_under_way
from b44_assets.runs.services import ServiceError, services
from tests.helpers.servers import free_port


def test_a_service_that_ends_is_named_with_its_status_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/false")

    with services(free_port(), None) as started, pytest.raises(ServiceError) as caught:
        started.wait_for_page()

    assert "code-location of Dagster ended by itself, with status 1" in str(caught.value)
    assert caught.value.exit_status == 1
    assert not started.folder.exists()


def test_runs_are_said_to_go_on_only_where_the_storage_has_one_that_has_begun(embedded_database: str) -> None:
    with connect(embedded_database, autocommit=True) as conn:
        assert not runs_under_way(conn)
        conn.execute("create table runs as select status from unnest(array['QUEUED', 'SUCCESS', 'CANCELED']) status")
        assert not runs_under_way(conn)
        conn.execute("insert into runs values ('STARTED')")
        assert runs_under_way(conn)
