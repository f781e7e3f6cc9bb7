"""Every check is seen to pass and to fail, by a test that makes the condition it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import build_definitions

TESTS = Path(__file__).parents[1]
# By file, then by check: the tests in which it passes, and in which it fails; one where both are in the same test.
SEEN: dict[str, dict[str, tuple[str, ...]]] = {
    "monitoring/test_monitoring_activity.py": {
        "connections_left": ("test_connections_are_counted_and_too_many_are_told",),
        "no_long_transaction": ("test_a_long_transaction_is_told_with_its_process",),
        "no_idle_transaction": ("test_a_session_idle_in_a_transaction_is_told",),
        "sessions_encrypted": ("test_a_session_from_another_machine_without_tls_is_told",),
        "few_rollbacks": ("test_rolled_back_transactions_are_counted_as_a_share",),
        "mostly_cached": ("test_blocks_that_are_not_in_memory_are_told",),
        "no_long_wait": ("test_who_waits_for_a_lock_and_who_blocks_is_told",),
        "no_long_lock": ("test_who_waits_for_a_lock_and_who_blocks_is_told",),
        "no_deadlock": ("test_a_deadlock_is_counted",),
    },
    "monitoring/test_monitoring_server.py": {
        "statements_fast": ("test_a_statement_that_runs_long_is_told",),
        "slots_read": ("test_a_slot_without_a_reader_is_told",),
        "wal_rate": ("test_wal_is_measured_by_the_second",),
        "checkpoints_in_time": ("test_checkpoints_that_were_asked_for_are_told",),
        "sessions_need_not_write": ("test_sessions_that_have_to_write_blocks_are_told",),
        "few_temp_files": ("test_temporary_files_are_told",),
        "transaction_ids_young": ("test_the_age_of_transaction_ids_grows_with_their_use",),
        "multixacts_young": ("test_rows_that_several_have_locked_use_up_multixacts",),
        "newest_minor_release": ("test_a_server_that_is_not_of_the_newest_release_is_told",),
        "processors_left": ("test_processors_and_memory_of_the_machine_are_told",),
        "memory_left": ("test_processors_and_memory_of_the_machine_are_told",),
    },
    "monitoring/test_monitoring_own_server.py": {
        "archiving_works": (
            "test_an_archive_command_that_fails_is_told_until_it_works",
            "test_files_of_the_wal_that_wait_to_be_archived_are_told_though_nothing_fails",
        ),
        "standbys_follow": ("test_a_standby_that_is_behind_is_told_on_both_sides",),
    },
    "monitoring/test_monitoring_storage.py": {
        "grows_as_expected": ("test_tables_are_summed_up_over_their_partitions_and_the_growth_is_told",),
        "disk_free": ("test_a_disk_that_is_nearly_full_is_told",),
        "not_full_soon": ("test_when_a_disk_is_full_is_told_from_how_it_has_grown",),
        "no_bloated_table": ("test_a_table_that_is_mostly_empty_is_told",),
        "vacuumed": ("test_dead_and_changed_rows_are_told",),
        "analyzed": ("test_dead_and_changed_rows_are_told",),
        "default_partitions_empty": ("test_rows_in_a_default_partition_are_told",),
        "quarantine_empty": ("test_what_waits_in_quarantine_is_told_until_the_migration_is_over",),
    },
    "monitoring/test_settings_advice.py": {
        "settings_fit": (
            "test_nothing_is_said_of_what_fits",
            "test_the_settings_of_a_server_are_compared_by_a_role_with_pg_monitor",
        ),
    },
    "monitoring/test_index_figures.py": {"indexes_worth_having": ("test_an_index_that_repeats_another_is_told",)},
    "database/test_query_runs.py": {
        "blocks_as_before": (
            "test_a_query_that_takes_more_blocks_a_row_than_ever_is_told_and_a_table_that_grows_is_no_reason",
            "test_checks_say_which_query_and_by_how_much",
        ),
        "rows_as_estimated": (
            "test_rows_that_the_planner_misjudges_are_told",
            "test_checks_say_which_query_and_by_how_much",
        ),
        "indexes_suggested": ("test_a_scan_that_drops_most_rows_is_evidence_for_an_index",),
    },
    "backup/test_backup_figures.py": {
        "backup_new_enough": (
            "test_a_new_good_backup_and_a_good_drill_are_well",
            "test_a_store_without_a_new_good_backup_is_told",
        ),
        "recovery_rehearsed": (
            "test_a_new_good_backup_and_a_good_drill_are_well",
            "test_what_the_last_drill_has_found_is_compared",
        ),
        "recovery_point": (
            "test_a_new_good_backup_and_a_good_drill_are_well",
            "test_what_the_last_drill_has_found_is_compared",
        ),
        "recovery_time": (
            "test_a_new_good_backup_and_a_good_drill_are_well",
            "test_what_the_last_drill_has_found_is_compared",
        ),
    },
    "backup/test_backup_health.py": {
        "newest_is_good": (
            "test_a_new_good_backup_of_each_expected_kind_is_well",
            "test_a_new_backup_that_is_not_good_does_not_count",
        ),
        "records_readable": ("test_a_record_that_cannot_be_read_is_not_well",),
        "chains_whole": ("test_a_broken_chain_is_named",),
        "backups_verified": ("test_each_backup_that_is_not_proven_is_named",),
        "nothing_failed_silently": (
            "test_an_attempt_that_came_to_nothing_is_named_until_a_backup_of_its_kind_follows",
        ),
        "no_gap": ("test_an_archive_without_a_gap_is_well", "test_a_gap_is_named"),
        "keeps_up": (
            "test_an_archive_without_a_gap_is_well",
            "test_wal_that_waits_for_too_long_is_not_well",
        ),
    },
    # On a real store and a real server, each with the condition itself.
    "backup/test_recovery.py": {
        "backup_new_enough": ("test_a_drill_measures_what_would_be_lost_and_keeps_it",),
        "recovery_rehearsed": ("test_a_drill_measures_what_would_be_lost_and_keeps_it",),
        "recovery_point": ("test_a_drill_measures_what_would_be_lost_and_keeps_it",),
        "recovery_time": ("test_a_drill_measures_what_would_be_lost_and_keeps_it",),
        "newest_is_good": ("test_damage_to_each_file_is_found_and_named",),
        "backups_verified": ("test_damage_to_each_file_is_found_and_named",),
        "chains_whole": ("test_a_missing_link_of_a_chain_is_named",),
        "no_gap": ("test_a_missing_segment_is_named",),
        "keeps_up": ("test_wal_that_is_not_archived_or_not_taken_to_the_store_is_told_until_it_is",),
        "archiving_works": ("test_wal_that_is_not_archived_or_not_taken_to_the_store_is_told_until_it_is",),
    },
    "backup/test_taking.py": {
        "nothing_failed_silently": ("test_a_killed_backup_counts_for_nothing_and_hinders_nobody",),
    },
    "dagster/test_backups.py": {
        "records_readable": (
            "test_the_review_goes_red_on_a_store_without_backups",
            "test_the_review_goes_red_on_a_backup_that_came_to_nothing_and_on_one_that_is_damaged",
        ),
    },
    "database/test_verification.py": {
        "row_parity": ("test_good_data_passes_on_either_server", "test_a_deleted_row_is_found_and_named"),
        "content_parity": ("test_good_data_passes_on_either_server", "test_a_changed_value_is_found_and_named"),
    },
    "database/test_delta.py": {"export_applied": ("test_an_edited_row_is_never_overwritten",)},
    "schema/test_health.py": {
        "constraints_valid": (
            "test_a_freshly_built_schema_passes",
            "test_a_constraint_that_was_never_validated_is_named",
        ),
        "indexes_valid": ("test_a_freshly_built_schema_passes", "test_an_invalid_index_is_named"),
        "foreign_keys_hold": ("test_a_freshly_built_schema_passes", "test_a_reference_without_a_row_is_counted"),
        "publish_permissions": (
            "test_a_freshly_built_schema_passes",
            "test_published_posts_of_authors_without_the_right_are_counted",
        ),
        "slugs_registered": (
            "test_a_freshly_built_schema_passes",
            "test_a_slug_that_is_not_registered_and_one_of_no_post_are_counted",
        ),
        "view_equals_query": (
            "test_a_freshly_built_schema_passes",
            "test_a_view_that_differs_from_its_query_is_found",
        ),
        "view_fresh": ("test_an_old_view_is_stale_only_once_its_table_has_changed",),
        "query_plans": (
            "test_a_freshly_built_schema_passes",
            "test_a_query_whose_index_is_gone_fails",
            "test_a_query_for_which_partitions_are_not_pruned_fails",
        ),
        "schema_drift": ("test_a_freshly_built_schema_passes", "test_a_difference_from_the_files_is_named"),
    },
    # A grant that was revoked, a policy that was dropped.
    "schema/test_privileges.py": {"schema_drift": ("test_each_difference_is_named_and_mended_by_a_migration",)},
    "schema/test_row_level_security.py": {"schema_drift": ("test_a_dropped_policy_is_drift_until_the_next_migration",)},
    "schema/test_partitions.py": {
        "partition_bounds": ("test_partitions_without_a_gap_pass", "test_a_gap_is_found"),
        "ids_unique": ("test_an_id_in_two_months_is_found",),
    },
}


def test_every_check_has_its_tests() -> None:
    definitions = build_definitions(Settings.load({}, Path("/nonexistent")))
    checks = {key.name for key in definitions.resolve_asset_graph().asset_check_keys}
    assert {check for seen in SEEN.values() for check in seen} == checks


@pytest.mark.parametrize("file", SEEN)
def test_the_tests_of_a_check_are_there(file: str) -> None:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for tests in SEEN[file].values() for name in tests} - there == set()
