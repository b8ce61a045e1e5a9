from benchmarks.provenance import shown_command


def test_a_result_names_no_place_of_the_machine_that_made_it() -> None:
    words = ["--pairs", "/home/me/runs/prepare", "--work", "/scratch", "--rounds", "3", "--config", "configs/a.yaml"]
    assert shown_command("benchmarks.annotate", words) == (
        "python -m benchmarks.annotate --pairs DIR --work DIR --rounds 3 --config configs/a.yaml"
    )
