from raylib.annotation.watchdog import MAX_DEATHS_A_UNIT, Watchdog


def test_a_run_stalls_when_no_request_ends_for_long_enough() -> None:
    watchdog = Watchdog(start_s=600.0, stall_s=60.0, moved_s=100.0)
    assert watchdog.look(160.0, num_ended=0, num_units=0, num_deaths=0, is_ready=True) is None
    assert watchdog.look(161.0, num_ended=5, num_units=0, num_deaths=0, is_ready=True) is None
    assert watchdog.look(221.0, num_ended=5, num_units=0, num_deaths=0, is_ready=True) is None
    assert watchdog.look(222.0, num_ended=5, num_units=0, num_deaths=0, is_ready=True) == (
        "no request has ended for 61 s (limits.stall_s)"
    )


def test_starting_has_a_limit_of_its_own() -> None:
    watchdog = Watchdog(start_s=600.0, stall_s=60.0, moved_s=0.0)
    assert watchdog.look(600.0, num_ended=0, num_units=0, num_deaths=0, is_ready=False) is None
    assert watchdog.look(601.0, num_ended=0, num_units=0, num_deaths=0, is_ready=False) == (
        "no engine is ready after 601 s (limits.start_s)"
    )
    assert watchdog.look(602.0, num_ended=0, num_units=0, num_deaths=0, is_ready=True) is None
    assert watchdog.look(663.0, num_ended=0, num_units=0, num_deaths=0, is_ready=True) == (
        "no request has ended for 61 s (limits.stall_s)"
    )


def test_work_done_anew_after_a_lost_engine_is_movement() -> None:
    watchdog = Watchdog(start_s=600.0, stall_s=60.0, moved_s=0.0)
    assert watchdog.look(50.0, num_ended=400, num_units=0, num_deaths=0, is_ready=True) is None
    assert watchdog.look(100.0, num_ended=0, num_units=0, num_deaths=1, is_ready=True) is None
    assert watchdog.look(105.0, num_ended=10, num_units=0, num_deaths=1, is_ready=True) is None
    assert watchdog.look(160.0, num_ended=10, num_units=0, num_deaths=1, is_ready=True) is None


def test_engines_that_die_and_die_end_the_run_unless_units_get_finished() -> None:
    finishing = Watchdog(start_s=600.0, stall_s=1e9, moved_s=0.0)
    dying = Watchdog(start_s=600.0, stall_s=1e9, moved_s=0.0)
    for deaths in range(MAX_DEATHS_A_UNIT + 1):
        assert finishing.look(0.0, num_ended=0, num_units=deaths, num_deaths=deaths, is_ready=True) is None
        assert dying.look(0.0, num_ended=0, num_units=0, num_deaths=deaths, is_ready=True) is None
    deaths = MAX_DEATHS_A_UNIT + 1
    assert finishing.look(0.0, num_ended=0, num_units=deaths, num_deaths=deaths, is_ready=True) is None
    assert dying.look(0.0, num_ended=0, num_units=0, num_deaths=deaths, is_ready=True) == (
        f"{deaths} engines died without finishing a unit"
    )
