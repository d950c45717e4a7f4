//! The layers below the flags: the TOML file and the environment, each as flags that could have been given.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, Command};

use super::{SettingsError, suggestion};

const PREFIX: &str = "MEMHARVEST_";

/// Values by argument id.
pub(super) type Layer = BTreeMap<String, Assignment>;

/// One setting's value, and where it was found.
pub(super) struct Assignment {
    pub(super) long: String,
    pub(super) values: Vec<OsString>,
    pub(super) origin: String,
    shape: Shape,
}

/// How many values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Switch,
    One,
    Many,
}

impl Assignment {
    /// The flags that say the same.
    pub(super) fn as_flags(&self) -> Vec<OsString> {
        let with_value = |value: &OsString| {
            let mut flag = OsString::from(format!("--{}=", self.long));
            flag.push(value);
            flag
        };
        match (self.shape, self.values.first()) {
            (Shape::Switch, Some(value)) if value == "true" => vec![format!("--{}", self.long).into()],
            (Shape::Switch, _) => Vec::new(),
            (Shape::One | Shape::Many, _) => self.values.iter().map(with_value).collect(),
        }
    }
}

/// A setting as the layers know it.
pub(super) struct Known {
    id: String,
    long: String,
    variable: Option<String>,
    shape: Shape,
    /// Settable by the file and the environment, not only by a flag.
    layered: bool,
}

impl Known {
    fn new(arg: &Arg) -> Option<Self> {
        let long = arg.get_long()?.to_owned();
        Some(Self {
            id: arg.get_id().to_string(),
            variable: arg.get_env().and_then(OsStr::to_str).map(str::to_owned),
            shape: match arg.get_action() {
                ArgAction::SetTrue => Shape::Switch,
                ArgAction::Append => Shape::Many,
                _ => Shape::One,
            },
            layered: !arg.is_hide_set()
                && !["check", "healthcheck", "help", "version"].contains(&long.as_str()),
            long,
        })
    }

    fn key(&self) -> String {
        self.long.replace('-', "_")
    }

    fn assign(&self, values: Vec<OsString>, origin: String) -> Result<Assignment, SettingsError> {
        if self.shape == Shape::Switch
            && !matches!(values.as_slice(), [value] if value == "true" || value == "false")
        {
            return Err(SettingsError::BadValue {
                origin,
                message: "is a switch; write true or false".into(),
            });
        }
        if self.shape == Shape::One && values.len() != 1 {
            return Err(SettingsError::BadValue { origin, message: "takes one value, not a list".into() });
        }
        Ok(Assignment { long: self.long.clone(), values, origin, shape: self.shape })
    }
}

/// Takes the environment away from clap, which would read the process's own, and tells what it knew. The variables'
/// names stay in the help text.
pub(super) fn without_environment(command: Command) -> (Command, Vec<Known>) {
    let mut known = Vec::new();
    let command = command.mut_args(|arg| {
        known.extend(Known::new(&arg));
        let Some(variable) = arg.get_env().and_then(OsStr::to_str).map(str::to_owned) else { return arg };
        let name_it = |help: &clap::builder::StyledStr| format!("{help} [env: {variable}]");
        let help = arg.get_help().map(name_it);
        let long_help = arg.get_long_help().map(name_it);
        let mut arg = arg.env(None);
        if let Some(help) = help {
            arg = arg.help(help);
        }
        if let Some(long_help) = long_help {
            arg = arg.long_help(long_help);
        }
        arg
    });
    // Subcommands read their own variables; here they only need to be no strangers.
    for subcommand in command.get_subcommands() {
        for arg in subcommand.get_arguments() {
            known.extend(Known::new(arg).map(|known| Known { layered: false, ..known }));
        }
    }
    (command, known)
}

/// What an operator may have set for the command `memharvest`, in the shell that a service is started from as well.
const OF_THE_COMMAND: [&str; 5] =
    ["MEMHARVEST_URL", "MEMHARVEST_TOKEN", "MEMHARVEST_CA", "MEMHARVEST_CA_DIR", "MEMHARVEST_CA_URL"];

/// The layer of the environment.
pub(super) fn variables(
    known: &[Known],
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Layer, SettingsError> {
    let mut layer = Layer::new();
    for (name, value) in env {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let mut owners = known.iter().filter(|known| known.variable.as_deref() == Some(name)).peekable();
        if owners.peek().is_none() {
            if is_service_link(name, &value) || OF_THE_COMMAND.contains(&name) {
                continue;
            }
            let names = known.iter().filter_map(|known| known.variable.as_deref());
            let suggestion = suggestion::nearest(name, names);
            return Err(SettingsError::UnknownVariable { name: name.to_owned(), suggestion });
        }
        if value.is_empty() {
            continue;
        }
        for known in owners.filter(|known| known.layered) {
            let values = match value.to_str() {
                Some(text) if known.shape == Shape::Many => {
                    text.split(',').map(|part| part.trim().into()).collect()
                }
                _ => vec![value.clone()],
            };
            layer.insert(known.id.clone(), known.assign(values, name.to_owned())?);
        }
    }
    Ok(layer)
}

/// Kubernetes tells every pod where the Services of its namespace are, in variables that start with the Service's
/// name: `<SERVICE>_SERVICE_HOST`, `<SERVICE>_SERVICE_PORT[_<NAME>]`, `<SERVICE>_PORT=tcp://…`,
/// `<SERVICE>_PORT_<N>_TCP[_ADDR|_PORT|_PROTO]`. They are not ours.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") {
        return true;
    }
    let is_url = value.to_str().is_some_and(|value| value.contains("://"));
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    let Some((_, port)) = name.split_once("_PORT_") else { return false };
    let mut parts = port.split('_');
    let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
    let protocol = parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol));
    number && protocol && matches!(parts.next(), None | Some("ADDR" | "PORT" | "PROTO"))
}

/// The layer of the TOML file.
pub(super) fn file(known: &[Known], file: &Path) -> Result<Layer, SettingsError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| SettingsError::Unreadable { file: file.to_owned(), source })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| SettingsError::NotToml {
        file: file.to_owned(),
        message: one_line(&text, &error),
    })?;
    let mut layer = Layer::new();
    for (key, value) in table {
        let settable = || known.iter().filter(|known| known.layered && known.id != "config");
        let Some(found) = settable().find(|known| known.key() == key || known.id == key) else {
            let keys: Vec<String> = settable().map(Known::key).collect();
            let suggestion = suggestion::nearest(&key, keys.iter().map(String::as_str));
            return Err(SettingsError::UnknownKey { key, file: file.to_owned(), suggestion });
        };
        let origin = format!("`{key}` in {}", file.display());
        let values = values(value).ok_or_else(|| SettingsError::BadValue {
            origin: origin.clone(),
            message: "is nested too deep; write a value, a list of values or a table of values".into(),
        })?;
        if layer.contains_key(&found.id) {
            return Err(SettingsError::BadValue { origin, message: "is set twice, under two names".into() });
        }
        layer.insert(found.id.clone(), found.assign(values, origin)?);
    }
    Ok(layer)
}

fn one_line(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let message = error.message().replace('\n', ", ");
    line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(time) => Some(time.to_string()),
        toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// A table becomes `key=value`, as the same setting's flag would be written.
fn values(value: toml::Value) -> Option<Vec<OsString>> {
    match value {
        toml::Value::Array(values) => values.into_iter().map(|value| scalar(value).map(Into::into)).collect(),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(key, value)| scalar(value).map(|value| format!("{key}={value}").into()))
            .collect(),
        value => scalar(value).map(|value| vec![value.into()]),
    }
}
