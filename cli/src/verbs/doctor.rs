//! `memharvest doctor`.

use serde_json::{Value, json};

use super::{Context, print, print_json};
use crate::Failure;
use crate::api::{Finding, Host};
use crate::client::path;
use crate::format::{count, printable};
use crate::table::Tone;

/// What keeps machines from being measured well, each with its cure
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Only this host
    #[arg(long)]
    host: Option<String>,
}

/// Shows the findings of one host or of all.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &DoctorArgs) -> Result<(), Failure> {
    let hosts = if let Some(host) = &args.host {
        vec![host.clone()]
    } else {
        let found = context.gateway.list("/hosts", "hosts", &[]).await?;
        context.read_all::<Host>("/hosts", found)?.into_iter().map(|host| host.host).collect()
    };
    let mut raw: Vec<Value> = Vec::new();
    let mut findings: Vec<(String, Finding)> = Vec::new();
    let mut silent: Vec<String> = Vec::new();
    for host in &hosts {
        let path = path(&["hosts", host, "diagnosis"]);
        let mut body = match context.gateway.get(&path, &[]).await {
            Ok(reply) => reply.body,
            // One host that cannot be asked must not hide what is known of the others.
            Err(error) if args.host.is_none() => {
                silent.push(format!("{host}: {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(Value::Array(found)) = body.get_mut("findings").map(Value::take) else { continue };
        raw.extend(found.iter().cloned());
        let found: Vec<Finding> = context.read_all(&path, found)?;
        findings.extend(found.into_iter().map(|finding| (host.clone(), finding)));
    }
    if context.out.json {
        return print_json(&json!({ "findings": raw, "not_answered": silent }));
    }
    let machine_hosts = u64::try_from(hosts.len()).unwrap_or(u64::MAX);
    print(&report(&findings, &silent, machine_hosts, context.out.coloured))
}

fn report(findings: &[(String, Finding)], silent: &[String], hosts: u64, coloured: bool) -> String {
    let mut lines = Vec::new();
    for (host, finding) in findings {
        let tone = match finding.severity.as_str() {
            "error" => Tone::Bad,
            "warning" => Tone::Warn,
            _ => Tone::Plain,
        };
        let machine = finding.vm_name.as_deref().or(finding.vm.as_deref()).filter(|name| !name.is_empty());
        let subject = machine.map_or_else(|| format!("host {host}"), |name| format!("{name} on {host}"));
        let severity = tone.paint(&finding.severity, coloured);
        let [subject, code, cause, cure] =
            [&subject, &finding.code, &finding.cause, &finding.cure].map(|text| printable(text));
        lines.push(format!("{severity}  {subject}  [{code}]\n  cause  {cause}"));
        if !cure.is_empty() {
            lines.push(format!("  cure   {cure}"));
        }
    }
    for host in silent {
        lines.push(format!("{}  {}", Tone::Warn.paint("not answered", coloured), printable(host)));
    }
    let number = u64::try_from(findings.len()).unwrap_or(u64::MAX);
    let summary = match (number, silent.is_empty()) {
        (0, true) => format!("nothing to mend on {}", count(hosts, "host")),
        _ => format!("{} on {}", count(number, "finding"), count(hosts, "host")),
    };
    lines.push(summary);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_machine_cause_and_cure() {
        let finding: Finding =
            serde_json::from_value(json!({"vm": "u", "vm_name": "web", "code": "no_period",
            "severity": "warning", "cause": "the balloon has no statistics period",
            "cure": "virsh dommemstat web --period 5 --live --config"}))
            .unwrap();
        let text = report(&[("h1".to_owned(), finding)], &[], 1, false);
        assert!(text.starts_with("warning  web on h1  [no_period]\n"), "{text}");
        assert!(text.contains("cure   virsh dommemstat web --period 5"), "{text}");
        assert!(text.ends_with("1 finding on 1 host\n"), "{text}");
    }

    #[test]
    fn a_host_that_does_not_answer_is_no_healthy_host() {
        let text = report(&[], &["h1: away".to_owned()], 1, false);
        assert!(text.contains("not answered  h1: away") && !text.contains("nothing to mend"), "{text}");
        assert_eq!(report(&[], &[], 2, false), "nothing to mend on 2 hosts\n");
    }
}
