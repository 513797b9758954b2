"""Provenance statements and bills of materials against what their standards ask for: the schemas in testdata/documents,
and what a schema cannot say."""
import json
import pathlib
import uuid

import validate_schema


class Documents:
    def __init__(self, source):
        folder = pathlib.Path(source) / "testdata/documents"
        load = lambda name: json.loads((folder / f"{name}.schema.json").read_text())
        self.provenance_schema, self.bom_schema = load("slsa-provenance-v1"), load("cyclonedx-1.6")

    def provenance_faults(self, statement):
        """What is wrong with an in-toto statement, as a list of lines."""
        out = validate_schema.faults(statement, self.provenance_schema)
        names = [s.get("name") for s in statement["subject"]]
        return out + [f"subject {n!r} is there twice" for n in set(names) if names.count(n) > 1]

    def bom_faults(self, bom):
        out = validate_schema.faults(bom, self.bom_schema)
        defined, used = [], []
        self.references(bom, defined, used)
        out += [f"bom-ref {r!r} is there twice" for r in set(defined) if defined.count(r) > 1]
        out += [f"nothing has the bom-ref {r!r}" for r in used if r not in defined]
        serial = uuid.UUID(bom["serialNumber"])
        if serial.variant != uuid.RFC_4122 or serial.version != 8:
            out.append(f"{serial} is no UUID of version 8")
        return out

    def references(self, value, defined, used):
        if isinstance(value, list):
            for item in value:
                self.references(item, defined, used)
        elif isinstance(value, dict):
            for key, item in value.items():
                if key in ("bom-ref", "ref"):
                    (defined if key == "bom-ref" else used).append(item)
                self.references(item, defined, used)
