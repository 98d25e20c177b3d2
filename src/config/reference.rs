//! What is made from the table of flags for people: `--help`, the manual's page, the README's table. Writes no file.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use super::flags::{FLAGS, Flag, Group, Kind};
use super::parse;

/// Columns that the help and the manual are wrapped to.
const COLUMNS: usize = 96;

/// The text of `--version`.
pub fn version() -> String {
    format!("hoopsnake {}\n", env!("CARGO_PKG_VERSION"))
}

/// The text of `--help`.
pub fn help() -> String {
    let command: Command = FLAGS.iter().map(help_argument).fold(parse::bare(), Command::arg);
    let command = command
        .about("Serves a WSGI application over HTTP.")
        .override_usage("hoopsnake [FLAGS] [APPLICATION]")
        .help_template("{about}\n\nUsage: {usage}\n\n{before-help}{all-args}{after-help}")
        .before_help("APPLICATION is module, module:callable or module:factory(\"args\").")
        .after_help(AFTER)
        .term_width(COLUMNS);
    let rendered = { command }.render_help().to_string();
    let lines: Vec<&str> = rendered.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

const AFTER: &str = "\
Every flag may be written -flag VALUE, -flag=VALUE, --flag VALUE or --flag=VALUE. It may also be
an environment variable (HOOPSNAKE_WORKERS=8 for --workers 8) or a key of the --config file
(workers = 8). The command line wins over the environment, the environment over the file.

hoopsnake mysite.wsgi
hoopsnake --http-socket 127.0.0.1:8080 --workers 32 mysite.wsgi:application
hoopsnake --http-socket unix:/run/mysite.sock 'mysite:create_app(\"production\")'";

fn help_argument(flag: &'static Flag) -> Arg {
    let long = Arg::new(flag.name).long(flag.name).help_heading(flag.group.title());
    let long = match flag.kind {
        Kind::Switch | Kind::Action => long.action(ArgAction::SetTrue).help(flag.help),
        Kind::Text | Kind::Number => {
            long.value_name(flag.metavar).help(format!("{} [{}]", flag.help, flag.default_text()))
        }
    };
    if flag.name == "help" { long.short('h') } else { long }
}

/// The README's table of flags: name, default and meaning of each.
pub fn readme_table() -> String {
    let mut table = String::from("| Flag | Default | Meaning |\n| --- | --- | --- |\n");
    for flag in FLAGS {
        let default = if flag.settable() { code(flag) } else { String::new() };
        let (usage, help) = (usage(flag).replace('|', "\\|"), flag.help);
        write_line(&mut table, &format!("| `{usage}` | {default} | {help} |"));
    }
    table
}

/// The manual's page of flags.
pub fn markdown_reference() -> String {
    let mut page = String::from(HEAD);
    for group in Group::ALL {
        write_line(&mut page, &format!("\n## {}", group.title()));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            section(&mut page, flag);
        }
    }
    page
}

const HEAD: &str = "\
# Flags

<!-- Made from the table in src/config/flags.rs: `UPDATE_DOCS=1 cargo test --lib config` writes this page. -->

    hoopsnake [FLAGS] [APPLICATION]

APPLICATION is `module`, `module:callable` or `module:factory(\"args\")`; `--module` says the same.
Without either, it is `wsgi_app`, which means the attribute `application` of the module `wsgi_app`.

Every flag can be given in four ways on the command line, in the environment, and in a file:

| Where | How |
| --- | --- |
| command line | `-workers 8`, `-workers=8`, `--workers 8` or `--workers=8` |
| environment | `HOOPSNAKE_WORKERS=8` |
| file named by `--config` | `workers = 8` |

The command line wins over the environment, and the environment over the file. A flag marked
*repeatable* may be given several times on the command line, as an array in the file, and with its
separator between values anywhere; what a higher place gives replaces the whole list of a lower one.
Of any other flag given twice in one place, the last one counts.

- A switch needs no value on the command line, and takes `=true` or `=false`. In the environment it is
  `true`, `1`, `yes`, `on` or their opposites; in the file `true` or `false`.
- Time-outs are seconds, whole or with a fraction: `60`, `0.5`. They go from a millisecond to a year.
- Sizes are bytes. `k`, `m` and `g` stand for KiB, MiB and GiB: `64k` is 65536.
- The keys of the file are the flags' names, with dashes or underscores, in no table. Numbers may be strings
  as well (`max-request-body = \"100m\"`).
- An empty environment variable counts as not given. An unknown one that begins with `HOOPSNAKE_` is ignored
  with a warning.

What can't be understood is an error, and the exit status 2: one sentence names the flag, where it was given,
the value, and what is accepted. `--check` shows what was understood and where each value came from.
";

fn section(page: &mut String, flag: &Flag) {
    write_line(page, &format!("\n### `{}`\n", usage(flag)));
    write_line(page, &wrapped(format!("{} {}", flag.help, flag.manual).trim()));
    if !flag.settable() {
        return;
    }
    let repeatable = match flag.separator {
        Some('\n') => "- Repeatable; separator: a line break\n".to_owned(),
        Some(separator) => format!("- Repeatable; separator: `{separator}`\n"),
        None => String::new(),
    };
    let (variable, name) = (flag.variable(), flag.name);
    let key = match flag.in_file {
        true => format!("`{name}`"),
        false => "none: not in a file".to_owned(),
    };
    let default = code(flag);
    let list = format!("\n- Default: {default}\n- Environment: `{variable}`\n- Key in the file: {key}\n{repeatable}");
    page.push_str(&list);
    write_line(page, &format!("\n```sh\n{}\n```", example(flag)));
    if flag.in_file {
        write_line(page, &format!("\n```toml\n{}\n```", toml(flag)));
    }
}

/// The flag with what it takes, as the help writes it.
fn usage(flag: &Flag) -> String {
    format!("--{} {}", flag.name, flag.metavar).trim_end().to_owned()
}

fn code(flag: &Flag) -> String {
    match flag.default {
        "" => format!("`{}`", flag.default_text()),
        text => text.to_owned(),
    }
}

fn example(flag: &Flag) -> String {
    match flag.kind {
        Kind::Switch | Kind::Action => format!("hoopsnake --{} mysite.wsgi", flag.name),
        _ if flag.positional.is_some() => format!("hoopsnake --{} {}", flag.name, flag.example),
        _ => format!("hoopsnake --{} {} mysite.wsgi", flag.name, flag.example),
    }
}

fn toml(flag: &Flag) -> String {
    let bare = flag.kind == Kind::Switch || flag.example.bytes().all(|byte| byte.is_ascii_digit());
    match flag.separator {
        Some(separator) => {
            let items: Vec<String> = flag.example.split(separator).map(|item| format!("\"{item}\"")).collect();
            format!("{} = [{}]", flag.name, items.join(", "))
        }
        None if bare => format!("{} = {}", flag.name, flag.example),
        None => format!("{} = \"{}\"", flag.name, flag.example),
    }
}

fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > 0 {
            let fits = column + 1 + width <= COLUMNS;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines.push_str(word);
        column += width;
    }
    lines
}

fn write_line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn in_tree(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    }

    /// `UPDATE_DOCS=1` writes what is expected instead.
    fn check(name: &str, expected: &str) {
        let path = in_tree(name);
        if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "{name} is stale: run UPDATE_DOCS=1 cargo test --lib config");
    }

    #[test]
    fn the_manual_is_true() {
        check("docs/flags.md", &markdown_reference());
    }

    #[test]
    fn the_readme_is_true() {
        const MARKS: (&str, &str) = ("<!-- flags -->\n", "<!-- /flags -->");
        let readme = std::fs::read_to_string(in_tree("README.md")).unwrap();
        let (before, rest) = readme.split_once(MARKS.0).expect("README.md has its opening mark");
        let (_, after) = rest.split_once(MARKS.1).expect("README.md has its closing mark");
        check("README.md", &[before, MARKS.0, &readme_table(), MARKS.1, after].concat());
    }

    #[test]
    fn the_help_names_everything_and_fits() {
        let help = help();
        for flag in FLAGS {
            assert!(
                help.contains(&usage(flag).replacen(' ', " <", usize::from(!flag.metavar.is_empty()))),
                "{}",
                flag.name
            );
        }
        for group in Group::ALL {
            assert!(help.contains(&format!("\n{}:\n", group.title())), "{group:?}");
        }
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(help.contains("[16]") && help.contains("[1g]") && help.contains("-h, --help"));
        assert!(!help.contains("\n\n\n") && help.contains("APPLICATION is module"));
    }

    #[test]
    fn every_example_is_understood() {
        for flag in FLAGS.iter().filter(|flag| flag.settable()) {
            let given = super::super::file::file(Path::new("x"), toml(flag).as_bytes());
            assert_eq!(given.is_ok(), flag.in_file, "{}", flag.name);
            let words: Vec<_> = example(flag).split(' ').skip(1).map(Into::into).collect();
            super::super::from(&words, &[], &|_| Ok(Vec::new())).unwrap();
        }
    }
}
