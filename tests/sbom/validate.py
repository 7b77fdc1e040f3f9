"""Validates documents with the formats' own libraries. Prints a JSON list of errors for each document.

    validate.py spdx|cyclonedx|statement|provenance FILE...
"""

import json
import sys


def spdx(path):
    """Checks the JSON schema of SPDX, and the rules of its library."""
    from importlib.resources import files

    from jsonschema import Draft7Validator
    from spdx_tools.spdx.parser.error import SPDXParsingError
    from spdx_tools.spdx.parser.parse_anything import parse_file
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    schema = json.loads(files("lib4sbom").joinpath("schemas/spdx/2.3-schema.json").read_text())
    with open(path) as file:
        if complaints := [error.message for error in Draft7Validator(schema).iter_errors(json.load(file))]:
            return complaints
    try:
        document = parse_file(path)
    except SPDXParsingError as error:
        return error.get_messages()
    return [message.validation_message for message in validate_full_spdx_document(document, "SPDX-2.3")]


def cyclonedx(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with open(path) as file:
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read())
    return [error] if error else []


def statement(path):
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    with open(path) as file:
        written = json.load(file)
    try:
        parsed = json_format.ParseDict(written, statement_pb2.Statement())
        Statement.copy_from_pb(parsed).validate()
    except (json_format.ParseError, ValueError) as error:
        return [error]
    return []


def provenance(path):
    """Checks a statement with SLSA provenance. Fields that the specification does not define are errors."""
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor

    if complaints := statement(path):
        return complaints
    with open(path) as file:
        written = json.load(file)
    try:
        predicate = json_format.ParseDict(written["predicate"], provenance_pb2.Provenance())
        for resource in predicate.build_definition.resolved_dependencies:
            ResourceDescriptor.copy_from_pb(resource).validate()
    except (json_format.ParseError, ValueError) as error:
        return [error]
    required = {
        "predicateType": written["predicateType"] == "https://slsa.dev/provenance/v1",
        "buildType": predicate.build_definition.build_type,
        "externalParameters": predicate.build_definition.external_parameters.fields,
        "builder.id": predicate.run_details.builder.id,
    }
    return [f"{name} is missing" for name, there in required.items() if not there]


validator = {"spdx": spdx, "cyclonedx": cyclonedx, "statement": statement, "provenance": provenance}[sys.argv[1]]
json.dump([[str(complaint) for complaint in validator(path)] for path in sys.argv[2:]], sys.stdout)
