"""One asset materialized by itself in a target where something is in the way: one line says what, and nothing was made."""

from __future__ import annotations

import dagster as dg
import pytest

from b44_assets.orchestration.migration.jobs import MIGRATE_JOB
from tests.helpers.code_locations import Place

MADE = "select relname from pg_class where relnamespace = 'public'::regnamespace order by 1"


@pytest.mark.parametrize(
    ("asset", "foreign", "named"),
    [
        ("categories", "create table users (id bigint, mail text)", "public.users"),
        ("events_constraints", "create table other (a int); create index unique_event_per_day on other (a)",
         "public.unique_event_per_day"),
        ("user_sessions_partitions", "create table user_sessions_3 (id int)", "public.user_sessions_3"),
        ("user_post_stats", "create sequence idx_user_post_stats_user_id", "public.idx_user_post_stats_user_id"),
        ("post_slugs", "create view post_slugs as select 1 as slug", "public.post_slugs"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_named_before_anything_is_made(
    empty: Place, asset: str, foreign: str, named: str
) -> None:
    empty.execute(foreign)
    before = empty.execute(MADE)
    result = empty.job(MIGRATE_JOB, assets=[dg.AssetKey(asset)])
    assert not result.success
    (fault,) = empty.migration.faults
    assert named in str(fault)
    assert "nothing was made or changed" in str(fault)
    assert empty.execute(MADE) == before


@pytest.mark.parametrize("asset", ["users", "users_account_indexes", "posts_partitions", "user_names"])
def test_what_one_can_go_back_to_is_said_before_what_is_there_is_changed(migrated: Place, asset: str) -> None:
    result = migrated.job(MIGRATE_JOB, assets=[dg.AssetKey(asset)])
    assert (result.success, migrated.said_of_backup(result)) == (True, 1)
