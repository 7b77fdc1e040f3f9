"""Renders the machine's reports: one line as each arrives, and the table at the end."""


def line(report):
    match report["kind"]:
        case "check":
            return f"  {'ok  ' if report['passed'] else 'FAIL'} {report['case']:16} {report['expected']}: {report['seen']}"
        case "figure":
            return f"       {report['case']:16} {report['name']}: {report['value']} {report['unit']}"
        case _:
            return f"       {report.get('text', '')}"


def table(results):
    rows = [("case", "expected", "seen", "seconds", "")]
    for report in results:
        if report["kind"] == "check":
            rows.append((report["case"], report["expected"], report["seen"], f"{report['seconds']:.1f}", "ok" if report["passed"] else "FAILED"))
        elif report["kind"] == "figure":
            rows.append((report["case"], report["name"], f"{report['value']} {report['unit']}", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    requests = [report["text"] for report in results if report["kind"] == "request"]
    if requests:
        lines += ["", "What the agent asked for:", *(f"  {request}" for request in requests)]
    return "\n".join(lines)
