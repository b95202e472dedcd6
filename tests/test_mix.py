import json
import re

from conftest import Project

from gdacli.shards import read_shard, write_shard
from gdacli.tables import read_table, write_table


def pool_keys(project: Project) -> list[str]:
    return read_table(project.folder / "data/synthetic/index.parquet")["key"]


def mix(project: Project, *options: str) -> dict[str, dict]:
    outcome = project("mix", "--json", *options)
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["arms"]


def keys_of(project: Project, arm: str) -> set[str]:
    return set(read_table(project.folder / f"data/mix/{arm}.parquet")["key"])


def drop(project: Project, key: str) -> None:
    """Make the pool one from which the filter dropped an image."""
    folder = project.folder / "data/synthetic"
    index = read_table(folder / "index.parquet")
    rows = [row for row, name in enumerate(index["key"]) if name != key]
    write_table(folder / "index.parquet", {name: [column[row] for row in rows] for name, column in index.items()})
    shard = index["shard"][index["key"].index(key)]
    write_shard(folder / "dropped" / shard, (sample for sample in read_shard(folder / shard) if sample.key == key))
    (folder / "dropped.csv").write_text(f"key,reason,shard,confidence\n{key},blank,{shard},0.1\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "dropped": {"blank": 1}}))


def test_rejected_images_are_left_out_of_every_mix(ready):
    before = mix(ready)
    everything = {arm: keys_of(ready, arm) for arm in before}
    rejected = [pool_keys(ready)[0], "sampled_00000002"]
    (ready.folder / "rejects.csv").write_text(f"key,reason\n{rejected[0]},dark\n\n{rejected[1]}\n")
    after = mix(ready)
    assert [after[arm]["rejected"] for arm in ("original", "targeted", "flood")] == [0, 1, 1]
    assert everything["targeted"] - keys_of(ready, "targeted") == {rejected[0]}
    assert everything["flood"] - keys_of(ready, "flood") == {rejected[1]}
    assert all(after[arm]["total"] == before[arm]["total"] - after[arm]["rejected"] for arm in before)
    outcome = ready("mix", "--arm", "flood")
    assert "4 synthetic (left out: 1 rejected) = " in outcome.stdout
    assert outcome.stderr == ""
    assert json.loads((ready.folder / "data/metrics/mix/flood.json").read_text())["rejected"] == 1


def test_no_list_rejects_nothing_and_strange_keys_are_noted(ready):
    before = mix(ready)
    (ready.folder / "rejects.csv").write_text("key\ny_s0500_v0\nx_s0500_v0\n")
    outcome = ready("mix")
    assert "note: rejects.csv: data/synthetic has not 2 of its 2 keys (first: x_s0500_v0)" in outcome.stderr
    assert mix(ready) == before
    (ready.folder / "rejects.csv").write_text("a,b\n")
    assert "rejects.csv: found the header 'a,b', allowed is" in ready("mix").error


def test_an_arm_that_loses_all_is_said(ready):
    (ready.folder / "rejects.csv").write_text("\n".join(["key", *pool_keys(ready)]))
    outcome = ready("mix", "--arm", "flood")
    assert outcome.code == 0
    assert re.findall(r"^warning: .*", outcome.stderr, re.MULTILINE) == [
        "warning: arm flood has no synthetic image left (left out: 5 rejected): it is the original images alone"
    ]


def test_what_the_filter_dropped_is_counted_and_what_is_just_missing_is_an_error(ready):
    first, second = pool_keys(ready)[:2]
    drop(ready, first)
    (ready.folder / "rejects.csv").write_text(f"key\n{first}\n{second}\n")
    counts = mix(ready)["targeted"]
    assert (counts["dropped"], counts["rejected"]) == (1, 1)
    assert ready("mix", "--arm", "targeted").stderr == ""
    (ready.folder / "data/synthetic/dropped.csv").unlink()
    (ready.folder / "rejects.csv").unlink()
    assert f"data/synthetic lacks 1 of the {counts['synthetic'] + 2} images that arm targeted" in ready("mix").error


def test_the_report_says_what_was_left_out_and_keeps_the_list(ready):
    ready.ok("mix", "train")
    first, second = pool_keys(ready)[:2]
    (ready.folder / "rejects.csv").write_text(f'key,reason\n{second},"dark, I think"\ngone_s0500_v0,</script>\n')
    assert f"targeted.parquet lists 1 images that rejects.csv rejects (first: {second})" in ready("evaluate").error
    drop(ready, first)
    ready.ok("mix", "train", "evaluate")
    said = f"The pool holds {len(pool_keys(ready))} synthetic images; generate.filter dropped 1 more (1 blank), and a "
    for name in ("report.md", "report.html"):
        text = (ready.folder / "data/evaluation" / name).read_text()
        assert name == "report.md" or f'alt="dropped image {first}, blank"' in text
        assert said + "person rejected 1 of the pool (rejects.csv), which no arm trains on." in text
    embedded = re.findall(r'<script type="application/json" id="rejects">(.*?)</script>', text)
    assert json.loads(embedded[0]) == {
        second: {"key": second, "reason": "dark, I think"},
        "gone_s0500_v0": {"key": "gone_s0500_v0", "reason": "</script>"},
    }
    pressed = dict(re.findall(r'class="reject" value="([^"]+)"[^>]*aria-pressed="(\w+)"', text))
    assert pressed.pop(second, "true") == "true"
    assert set(pressed.values()) == {"false"}
    results = json.loads((ready.folder / "data/evaluation/results.json").read_text())
    assert results["pool"] == {"images": len(pool_keys(ready)), "dropped": {"blank": 1}, "rejected": 1}
