"""A results document as an aligned table, as Markdown, and the hello chart's rows. Pure: text in, text out."""

import figures
import scenarios
import servers

DASH = "–"


def number(value, digits=0):
    """With thousands separators; a dash where there is none."""
    return DASH if value is None else f"{value:,.{digits}f}"


def significant(value):
    """Milliseconds and microseconds: three digits or so."""
    if value is None:
        return DASH
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2)


def megabytes(kib):
    """KiB as MB."""
    return DASH if kib is None else number(kib * 1024 / 1e6, 1)


def ratio(value):
    """Two digits and a times sign."""
    return DASH if value is None else f"{value:.2f}×"


def load_columns(row, rps_ratio, cpu_ratio):
    """The cells of a load scenario."""
    return {
        "requests/s": number(row.get("rps")),
        "req/s × base": ratio(rps_ratio),
        "p50 ms": significant(row.get("p50_ms")),
        "p99 ms": significant(row.get("p99_ms")),
        "CPU-µs/req": significant(row.get("cpu_us")),
        "CPU × base": ratio(cpu_ratio),
        "RSS MB": megabytes(row.get("rss_kib")),
        "peak MB": megabytes(row.get("peak_kib")),
        "errors": number(row.get("errors")),
        "others": DASH if row.get("others_share") is None else f"{row['others_share']:.0%}",
    }


def idle_columns(row, rps_ratio, cpu_ratio):
    """Those, and what the idle connections cost."""
    cells = load_columns(row, rps_ratio, cpu_ratio)
    return {**cells, "× without": ratio(row.get("idle_rps_ratio")), "bytes/idle": number(row.get("idle_bytes"))}


def beside_columns(row, rps_ratio, cpu_ratio):
    """Those, and what the other source costs."""
    cells = load_columns(row, rps_ratio, cpu_ratio)
    return {**cells, "p99 alone": significant(row.get("alone_p99_ms")), "× alone": ratio(row.get("beside_p99_ratio"))}


def transfer_columns(row, *_):
    """The cells of a long body."""
    return {
        "seconds": significant(row.get("transfer_seconds")),
        "CPU s": significant(row.get("cpu_seconds")),
        "RSS growth MB": megabytes(row.get("growth_kib")),
        "RSS MB": megabytes(row.get("rss_kib")),
    }


COLUMNS = {
    "load": load_columns,
    "idle": idle_columns,
    "beside": beside_columns,
    "download": transfer_columns,
    "upload": transfer_columns,
}


def sections(results):
    """(title, header, rows) for each scenario and mode, in order. A row: cells, or name and reason."""
    seen = []
    for entry in results["entries"]:
        if (entry["scenario"], entry["mode"]) not in seen:
            seen.append((entry["scenario"], entry["mode"]))
    for name, mode in seen:
        scenario = scenarios.BY_NAME[name]
        header, rows = ["server"], []
        for entry in results["entries"]:
            if (entry["scenario"], entry["mode"]) != (name, mode):
                continue
            if not entry["rounds"]:
                rows.append([entry["server"], "failed: " + (entry["failures"] or ["not measured"])[0].splitlines()[0]])
                continue
            ratios = [
                figures.ratio_of(results, name, mode, entry["server"], scenario.base, metric)
                for metric in ("rps", "cpu_us")
            ]
            cells = COLUMNS[scenario.kind](figures.medians(entry["rounds"]), *ratios)
            header = ["server", *cells]
            mark = (
                f" ({len(entry['failures'])} of {len(entry['failures']) + len(entry['rounds'])} rounds failed)"
                if entry["failures"]
                else ""
            )
            rows.append([entry["server"] + mark, *cells.values()])
        header = [cell.replace("base", scenario.base) for cell in header]
        yield f"{scenario.title} ({mode})", header, rows


def target_rows(results):
    """Each promise, measured and limit, and whether it is met."""
    rows = []
    for target in figures.targets(results):
        verdict = {None: "not measured", True: "met", False: "NOT MET"}[target.met]
        digits = 0 if target.limit >= 10 else 2
        limit = ("≤ " if target.at_most else "≥ ") + number(target.limit, digits)
        rows.append([target.sentence, number(target.measured, digits), limit, verdict])
    return rows


def aligned(header, rows, indent="  "):
    """Columns as wide as their widest cell; first one left, others right."""
    full = [row for row in [header, *rows] if len(row) == len(header)]
    widths = [max(len(row[index]) for row in full) for index in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        if len(row) != len(header):
            cells = [row[0].ljust(widths[0]), *row[1:]]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def markdown_table(header, rows):
    """A pipe table; numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|--:" * (len(header) - 1) + "|"]
    for row in rows:
        lines.append("| " + " | ".join([*row, *[""] * (len(header) - len(row))]).replace("\n", " ") + " |")
    return "\n".join(lines)


def about(results):
    """Sentences on the machine, the versions and the method."""
    machine, options = results["machine"], results["options"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    changed = ", with changes that aren't committed" if results["changed"] else ""
    lines = [
        f"{machine['processor']}, {machine['processors']} processors, Linux {machine['kernel']}; "
        f"commit {results['commit'][:12]}{changed}; {results['date']}.",
        f"{versions}.",
        f"{options['rounds']} rounds of {options['seconds']} s each, interleaved: every server once, then every "
        "server again, each time started anew. "
        "Medians; ratios are medians of the ratios within a round.",
        f"Pinned: server on processor {options['server_core']}, client on {options['client_core']}. CPU-µs/req: "
        "user and system time of all "
        "processes of the server over requests answered. Others: processors kept busy by other programs meanwhile.",
    ]
    if options.get("transfer_mb", 500) != 500:
        lines.append(f"The long bodies were of {options['transfer_mb']} MB, not 500.")
    used = {entry["server"] for entry in results["entries"]}
    lines += [f"{server.name}: {server.note}." for server in servers.SERVERS if server.name in used and server.note]
    lines += results["notes"]
    for entry in results["entries"]:
        strayed = {core for figure in entry["rounds"] for core in figure.get("affinity", [])} - {
            str(options["server_core"])
        }
        if entry["mode"] == "pinned" and strayed and entry["rounds"]:
            lines.append(
                f"{entry['server']} left the processor it was given in {entry['scenario']} "
                f"(it ran on {', '.join(sorted(strayed))})."
            )
    return lines


def as_text(results):
    """For the terminal."""
    blocks = [f"{title}\n{aligned(header, rows)}" for title, header, rows in sections(results)]
    blocks.append("What is promised\n" + aligned(["", "measured", "limit", ""], target_rows(results)))
    blocks.append("\n".join(about(results)))
    return "\n\n".join(blocks) + "\n"


def as_markdown(results):
    """For PERF.md."""
    blocks = [f"### {title}\n\n{markdown_table(header, rows)}" for title, header, rows in sections(results)]
    blocks.append("### What is promised\n\n" + markdown_table(["", "measured", "limit", ""], target_rows(results)))
    blocks.append("### How this was measured\n\n" + "\n".join(f"- {line}" for line in about(results)))
    commands = {}
    for entry in results["entries"]:
        if entry["scenario"] in ("hello-64", "sleep", "idle") and entry["command"]:
            commands.setdefault(entry["server"], entry["command"])
    if commands:
        blocks.append("Commands:\n\n```\n" + "\n".join(commands.values()) + "\n```")
    return "\n\n".join(blocks) + "\n"


def chart_rows(results, scenario="hello-64", mode="pinned"):
    """(server, requests/s, CPU-µs) from fast to slow; without the variants that only compare a server with itself."""
    left_out = {"hoopsnake-log", "bjoern-chunked", "granian-default", "uwsgi"}
    rows = []
    for entry in results["entries"]:
        if (
            (entry["scenario"], entry["mode"]) == (scenario, mode)
            and entry["rounds"]
            and entry["server"] not in left_out
        ):
            row = figures.medians(entry["rounds"])
            rows.append((entry["server"], row["rps"], row["cpu_us"]))
    return sorted(rows, key=lambda row: -row[1])
