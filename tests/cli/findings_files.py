"""Readers of what --junit and --sarif write, from their published rules; nothing here is wtool's.
(Python's standard library only)
"""
import json
import pathlib
import re
import xml.etree.ElementTree as xml


def junit(path):
    """The test cases as (class, name, verdict, text); faults in the counts raise AssertionError."""
    root = xml.parse(path).getroot()  # refuses what is not well-formed, control characters too
    assert root.tag == "testsuites", root.tag
    cases = []
    for suite in root:
        assert suite.tag == "testsuite" and suite.get("name"), suite.attrib
        mine = []
        for case in suite:
            assert case.tag == "testcase" and case.get("name") is not None and case.get("classname"), case.attrib
            parts = {part.tag: part for part in case}
            assert set(parts) <= {"failure", "error", "skipped", "system-out"}, set(parts)
            assert len(parts) == len(case)
            verdict = "failed" if "failure" in parts else "passed"
            if verdict == "failed":
                assert parts["failure"].get("message") and parts["failure"].get("type")
            text = "".join(part.text or "" for part in case)
            mine.append((case.get("classname"), case.get("name"), verdict, text))
        counts = {"tests": len(mine), "failures": sum(c[2] == "failed" for c in mine), "errors": 0}
        for name, n in counts.items():
            assert int(suite.get(name)) == n, (name, suite.attrib, n)
        cases += mine
    for name, n in {"tests": len(cases), "failures": sum(c[2] == "failed" for c in cases), "errors": 0}.items():
        assert int(root.get(name)) == n, (name, root.attrib, n)
    return cases


def sarif(path):
    """The results of the one run, after checking what the schema of SARIF 2.1.0 requires."""
    log = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    assert log["version"] == "2.1.0"
    assert set(log) <= {"$schema", "version", "runs", "inlineExternalProperties", "properties"}, set(log)
    assert re.fullmatch(r"https://\S+sarif-schema-2\.1\.0\.json", log["$schema"])
    (run,) = log["runs"]
    driver = run["tool"]["driver"]  # 3.14.6, 3.18.2: both required
    assert driver["name"] == "wtool" and re.match(r"\d+\.\d+", driver["version"])
    ids = [rule["id"] for rule in driver["rules"]]  # 3.49.3: required
    assert len(set(ids)) == len(ids)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]  # 3.12.3: a multiformat message has a text
    if "automationDetails" in run:
        assert isinstance(run["automationDetails"]["id"], str)
    assert isinstance(run["results"], list)  # 3.14.23: present when a scan was made, may be empty
    for result in run["results"]:
        assert result["message"]["text"]  # 3.27.11
        assert result["level"] in ("none", "note", "warning", "error")  # 3.27.10
        assert ids[result["ruleIndex"]] == result["ruleId"]  # 3.27.5, 3.27.6
        assert set(result) <= {"ruleId", "ruleIndex", "level", "message", "partialFingerprints", "locations"}, set(result)
        prints = result["partialFingerprints"]  # 3.27.17: strings by name
        assert prints and all(isinstance(v, str) and v for v in prints.values())
        for location in result["locations"]:
            assert set(location) <= {"physicalLocation", "logicalLocations"}, set(location)
            uri = location["physicalLocation"]["artifactLocation"]["uri"]
            # RFC 3986: a URI reference has none of these; a ':' in the first part would be a scheme
            assert re.fullmatch(r"(?:[A-Za-z0-9\-._~/!$&'()*+,;=@]|%[0-9A-F]{2})+", uri.removeprefix("file://")), uri
            for place in location.get("logicalLocations", []):
                assert place["fullyQualifiedName"] and place["kind"]  # 3.33.5, 3.33.7
                assert set(place) <= {"name", "fullyQualifiedName", "kind", "index"}
    return run["results"]


def tensors_of(result):
    return [p["fullyQualifiedName"] for l in result["locations"] for p in l.get("logicalLocations", [])]
