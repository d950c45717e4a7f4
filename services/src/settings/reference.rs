//! Every setting of a process as a page of Markdown, for docs/configuration.md.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

/// One table for each group of settings, in the order of `--help`. Flags that ask for something else than serving, such as
/// `--check`, are among them; hidden ones are not.
#[must_use]
pub fn markdown(command: &Command) -> String {
    let mut page = format!("## {}\n", command.get_name());
    if let Some(about) = command.get_about() {
        let _ = write!(page, "\n{about}.\n");
    }
    let shown: Vec<&Arg> =
        command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_long().is_some()).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in &shown {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        let _ = write!(page, "\n### {}: {}\n\n", command.get_name(), heading.unwrap_or("Service"));
        page.push_str("| flag | environment | default | meaning |\n| --- | --- | --- | --- |\n");
        for arg in shown.iter().filter(|arg| arg.get_help_heading() == heading) {
            row(&mut page, arg);
        }
    }
    page
}

fn row(page: &mut String, arg: &Arg) {
    let switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let mut flag = format!("--{}", arg.get_long().unwrap_or_default());
    for name in arg.get_value_names().unwrap_or_default().iter().filter(|_| !switch) {
        let _ = write!(flag, " {name}");
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if switch { String::new() } else { defaults.join(",") };
    let variable = arg.get_env().map(|name| name.to_string_lossy()).unwrap_or_default();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let cells = [code(&flag), code(&variable), code(&default), help.replace('\n', " ").replace('|', "\\|")];
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", text.replace('|', "\\|")) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::settings::Common;

    /// Serves nothing
    #[derive(clap::Parser)]
    #[command(name = "memharvest-nothing")]
    struct Nothing {
        /// Where to look, one or the other
        #[arg(long, value_name = "FILE|URL", env = "MEMHARVEST_PLACE", default_value = "here")]
        _place: String,
        #[command(flatten)]
        _common: Common,
    }

    #[test]
    fn a_page_has_every_setting_under_its_heading() {
        let page = markdown(&Nothing::command());
        assert!(page.starts_with("## memharvest-nothing\n\nServes nothing.\n"), "{page}");
        let place =
            "| `--place FILE\\|URL` | `MEMHARVEST_PLACE` | `here` | Where to look, one or the other |\n";
        assert!(page.contains(place), "{page}");
        let (_, process) = page.split_once("### memharvest-nothing: Process").unwrap();
        assert!(process.contains("| `--insecure` | `MEMHARVEST_INSECURE` |  | Serve on addresses"), "{page}");
        assert!(
            process.contains("| `--drain-deadline DURATION` | `MEMHARVEST_DRAIN_DEADLINE` | `10s` |"),
            "{page}"
        );
        assert!(!page.contains("--supervised"));
    }
}
