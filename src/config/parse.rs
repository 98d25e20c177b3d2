//! The command line: Go's forms (`-workers 8`, `-workers=8`, `--workers 8`, `--workers=8`) and one positional argument. The
//! parser is clap's, made from the table of flags; what clap doesn't know, Go's forms, is rewritten for it first. Values
//! aren't read here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, builder::OsStringValueParser};

use super::elsewhere;
use super::error::{Error, Origin};
use super::flags::{self, FLAGS, Flag, Kind};
use super::layer::{Given, Layer};
use super::values::shown;

/// What the command line asks for.
pub enum CommandLine {
    /// The help, whatever else stands there.
    Help,
    /// The version, whatever else stands there.
    Version,
    /// What the flags say.
    Layer(Layer),
}

/// Reads the arguments, the program's name left out.
///
/// # Errors
/// An unknown flag, a flag without its value, a second positional argument, or `--`.
pub fn command_line(arguments: &[OsString]) -> Result<CommandLine, Error> {
    let rewritten = match rewritten(arguments)? {
        Rewritten::Action(action) => return Ok(action),
        Rewritten::Arguments(rewritten) => rewritten,
    };
    let command = FLAGS.iter().flat_map(arguments_of).fold(bare(), Command::arg);
    let mut matches = command.try_get_matches_from(rewritten).map_err(|error| refused(arguments, &error))?;
    let mut layer = Layer::default();
    for flag in FLAGS.iter().filter(|flag| flag.settable()) {
        for id in [Some(flag.name), flag.positional].into_iter().flatten() {
            let Some(texts) = matches.remove_many::<OsString>(id) else {
                continue;
            };
            let spelling = if id == flag.name { format!("--{id}") } else { id.to_owned() };
            layer.push(Given { flag, spelling, texts: texts.collect(), origin: Origin::CommandLine })?;
        }
    }
    Ok(CommandLine::Layer(layer))
}

/// The command without its flags.
pub fn bare() -> Command {
    Command::new("hoopsnake")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
}

/// clap's arguments for a flag: itself, and its positional form.
fn arguments_of(flag: &'static Flag) -> impl Iterator<Item = Arg> {
    let text = |id: &'static str| Arg::new(id).value_parser(OsStringValueParser::new()).allow_hyphen_values(true);
    let long = text(flag.name).long(flag.name);
    let long = match (flag.kind, flag.separator) {
        (Kind::Switch, _) => long.num_args(0..=1).require_equals(true).default_missing_value("true"),
        (_, Some(_)) => long.action(ArgAction::Append),
        (_, None) => long.action(ArgAction::Set),
    };
    // Hyphens aren't allowed at the start of a positional: an unknown flag would pass for it.
    let positional = flag.positional.map(|id| Arg::new(id).index(1).value_parser(OsStringValueParser::new()));
    [Some(long), positional].into_iter().flatten()
}

enum Rewritten {
    Action(CommandLine),
    Arguments(Vec<OsString>),
}

/// Every flag as `--name` or `--name=value`, whichever of Go's forms it was given in.
fn rewritten(arguments: &[OsString]) -> Result<Rewritten, Error> {
    let mut result = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            let clause =
                "-- (command line): nothing is handed on to the application, so leave it and what follows out.";
            return Err(Error::usage(clause.to_owned()));
        }
        let Some((name, value)) = dashed(argument) else {
            result.push(argument.clone());
            continue;
        };
        let flag = name.to_str().and_then(flags::find);
        match (flag.map(|flag| flag.kind), value) {
            _ if name == "h" => return Ok(Rewritten::Action(CommandLine::Help)),
            (Some(Kind::Action), _) if name == "help" => return Ok(Rewritten::Action(CommandLine::Help)),
            (Some(Kind::Action), _) => return Ok(Rewritten::Action(CommandLine::Version)),
            (Some(Kind::Text | Kind::Number), None) => {
                let value = rest.next().filter(|value| !known(value)).ok_or_else(|| without_value(flag))?;
                result.push(double(name, Some(value)));
            }
            (_, value) => result.push(double(name, value)),
        }
    }
    Ok(Rewritten::Arguments(result))
}

/// Name and value of `-name`, `--name`, `-name=value`, `--name=value`. A dash alone is no flag.
fn dashed(argument: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = argument.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if bytes.is_empty() {
        return None;
    }
    let end = memchr::memchr(b'=', bytes).unwrap_or(bytes.len());
    let value = bytes.get(end + 1..).map(OsStr::from_bytes);
    Some((OsStr::from_bytes(&bytes[..end]), value))
}

/// Whether an argument is one of our flags: then it isn't the value of the one before it.
fn known(argument: &OsStr) -> bool {
    let name = dashed(argument).and_then(|(name, _)| name.to_str());
    name.is_some_and(|name| flags::find(name).is_some())
}

fn without_value(flag: Option<&Flag>) -> Error {
    let (name, metavar) = flag.map_or(("", ""), |flag| (flag.name, flag.metavar));
    Error::usage(format!("--{name} (command line): its value is missing: write --{name} {metavar}."))
}

fn double(name: &OsStr, value: Option<&OsStr>) -> OsString {
    let mut bytes = b"--".to_vec();
    bytes.extend_from_slice(name.as_bytes());
    if let Some(value) = value {
        bytes.push(b'=');
        bytes.extend_from_slice(value.as_bytes());
    }
    OsString::from_vec(bytes)
}

/// clap's refusal in our words. Once flags have been rewritten there is one left: an argument that nothing takes.
fn refused(arguments: &[OsString], error: &clap::Error) -> Error {
    let Some(ContextValue::String(culprit)) = error.get(ContextKind::InvalidArg) else {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return Error::usage(format!("{first} (command line)."));
    };
    let named = culprit.split('=').next().unwrap_or_default();
    let Some(name) = named.strip_prefix("--") else {
        let culprit = shown(OsStr::new(culprit));
        return Error::usage(format!(
            "{culprit} (command line): there is one application already, so leave this argument out."
        ));
    };
    // As it was typed: with one dash or two.
    let typed = arguments.iter().filter_map(|argument| Some((argument, dashed(argument)?.0)));
    let single = typed.clone().any(|(argument, other)| other == name && !argument.as_bytes().starts_with(b"--"));
    let typed = shown(OsStr::new(&if single { format!("-{name}") } else { named.to_owned() }));
    let plain = elsewhere::plain(name);
    let known = elsewhere::remedy(&flags::spelt(plain));
    let remedy = match known.map(str::to_owned).ok_or_else(|| flags::meant(plain)) {
        Ok(remedy) => remedy,
        Err(Some(flag)) => format!("did you mean --{}?", flag.name),
        Err(None) => "hoopsnake --help lists those there are.".to_owned(),
    };
    Error::usage(format!("{typed} (command line): there is no such flag; {remedy}"))
}
