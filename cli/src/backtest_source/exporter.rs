//! How exporters name what machines hold and use.

use std::collections::BTreeSet;
use std::fmt;

use super::readings::{Machine, Quantity};

/// The metric names and labels of one exporter. Empty: it does not tell that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exporter {
    name: &'static str,
    /// Labels that name the machine.
    machine: &'static [&'static str],
    /// The label that tells machines of one name apart.
    place: &'static str,
    /// What the guest holds: the balloon's size, and what to take where that is not known.
    allocated: &'static [&'static str],
    /// The guest's own total.
    total: &'static str,
    /// What the guest could still take.
    usable: &'static str,
    /// The resident set.
    rss: &'static str,
}

const INFO_MEMORY: &str = "libvirt_domain_info_memory_usage_bytes";

const EXPORTERS: [Exporter; 7] = [
    Exporter {
        name: "memharvest",
        machine: &["vm"],
        place: "",
        allocated: &["memharvest_vm_memory_allocated_bytes"],
        total: "memharvest_vm_memory_guest_total_bytes",
        usable: "memharvest_vm_memory_guest_available_bytes",
        rss: "memharvest_vm_memory_rss_bytes",
    },
    Exporter {
        name: "inovex",
        machine: &["domain"],
        place: "instance",
        allocated: &["libvirt_domain_memory_stats_current_balloon_bytes", INFO_MEMORY],
        total: "libvirt_domain_memory_stats_available_bytes",
        usable: "libvirt_domain_memory_stats_usable_bytes",
        rss: "libvirt_domain_memory_stats_rss_bytes",
    },
    Exporter {
        name: "tinkoff",
        machine: &["domain"],
        place: "instance",
        allocated: &["libvirt_domain_memory_stats_actual_balloon_bytes", INFO_MEMORY],
        total: "libvirt_domain_memory_stats_available_bytes",
        usable: "libvirt_domain_memory_stats_usable_bytes",
        rss: "libvirt_domain_memory_stats_rss_bytes",
    },
    Exporter {
        name: "kubevirt",
        machine: &["namespace", "name"],
        place: "",
        allocated: &["kubevirt_vmi_memory_actual_balloon_bytes", "kubevirt_vmi_memory_domain_bytes"],
        total: "kubevirt_vmi_memory_available_bytes",
        usable: "kubevirt_vmi_memory_usable_bytes",
        rss: "kubevirt_vmi_memory_resident_bytes",
    },
    Exporter {
        name: "zhangjianweibj",
        machine: &["domain"],
        place: "instance",
        allocated: &[INFO_MEMORY],
        total: "libvirt_domain_stat_memory_available_bytes",
        usable: "libvirt_domain_stat_memory_usable_bytes",
        rss: "libvirt_domain_stat_memory_rss_bytes",
    },
    Exporter {
        name: "opennebula",
        machine: &["one_vm_id"],
        place: "",
        allocated: &["opennebula_libvirt_memory_total_bytes"],
        total: "",
        usable: "",
        rss: "opennebula_libvirt_memory_rss_bytes",
    },
    // It tells what machines were given, and nothing else.
    Exporter {
        name: "kumina",
        machine: &["domain"],
        place: "instance",
        allocated: &[INFO_MEMORY],
        total: "",
        usable: "",
        rss: "",
    },
];

/// Every name that an exporter may use, as a regular expression.
pub(super) const NAMES: &str =
    "(memharvest_vm|libvirt_domain|libvirt_vm|kubevirt_vmi|opennebula_libvirt)_.*memory.*_bytes";

impl Exporter {
    /// The one of this name, for a flag.
    pub(super) fn named(name: &str) -> Result<&'static Self, String> {
        let found = EXPORTERS.iter().find(|exporter| exporter.name == name);
        found.ok_or_else(|| format!("there is no exporter `{name}`; use one of {}", known()))
    }

    /// Those whose metrics are among `names`. Some differ in nothing but the name of the balloon's size, so what else may
    /// stand for it counts only where no exporter's own is there.
    pub(super) fn among(names: &BTreeSet<String>) -> Vec<&'static Self> {
        let useful = || EXPORTERS.iter().filter(|exporter| exporter.tells_usage(names));
        let own: Vec<_> = useful().filter(|exporter| names.contains(exporter.allocated[0])).collect();
        let any = |exporter: &&Self| exporter.allocated(names).is_some();
        if own.is_empty() { useful().filter(any).collect() } else { own }
    }

    /// A metric that tells what machines hold, of any exporter.
    pub(super) fn allocation_among(names: &BTreeSet<String>) -> Option<&'static str> {
        EXPORTERS.iter().find_map(|exporter| exporter.allocated(names))
    }

    fn tells_usage(&self, names: &BTreeSet<String>) -> bool {
        names.contains(self.rss) || (names.contains(self.total) && names.contains(self.usable))
    }

    fn allocated(&self, names: &BTreeSet<String>) -> Option<&'static str> {
        self.allocated.iter().copied().find(|name| names.contains(*name))
    }

    /// `PromQL` for the number of machines.
    pub(super) fn count_query(&self, select: &str, names: &BTreeSet<String>) -> String {
        format!("count({}{})", self.allocated(names).unwrap_or_default(), selector(select))
    }

    /// `PromQL` for everything that is to be read, evaluated at the end of every step. A reading is the largest of the
    /// step before it, so no peak between two steps is lost; of what the guest could still take, the smallest. Some
    /// exporters write 0 for what they do not know, so 0 is no reading. Copies of a series that differ in other labels
    /// (replicas of a Prometheus) are one.
    pub(super) fn queries(
        &self,
        step: i64,
        select: &str,
        names: &BTreeSet<String>,
    ) -> Vec<(Quantity, String)> {
        let labels = self.machine.iter().chain([&self.place]).filter(|label| !label.is_empty());
        let by = labels.copied().collect::<Vec<_>>().join(", ");
        let select = selector(select);
        // A Prometheus before its third version counts both ends of a range: a reading on the edge would belong to two steps.
        let range = step * 1000 - 1;
        let over = |aggregate: &str, function: &str, name: &str| {
            format!("{aggregate} by ({by}) ({function}_over_time({name}{select}[{range}ms]) > 0)")
        };
        let there = |name: &&&str| names.contains(**name);
        let allocated: Vec<String> =
            self.allocated.iter().filter(there).map(|name| over("max", "last", name)).collect();
        let mut queries = vec![(Quantity::Allocated, allocated.join(" or "))];
        if names.contains(self.total) && names.contains(self.usable) {
            let used = format!("{} - {}", over("max", "max", self.total), over("min", "min", self.usable));
            queries.push((Quantity::Used, used));
        }
        if names.contains(self.rss) {
            queries.push((Quantity::Rss, over("max", "max", self.rss)));
        }
        queries
    }

    /// The machine of a series that one of the queries gave.
    pub(super) fn machine<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Machine {
        let value = |name: &&str| label(name).unwrap_or_default();
        Machine {
            name: self.machine.iter().map(value).collect::<Vec<_>>().join("/"),
            place: value(&self.place).to_owned(),
        }
    }
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The exporters' names, for messages.
pub(super) fn known() -> String {
    EXPORTERS.iter().map(|exporter| exporter.name).collect::<Vec<_>>().join(", ")
}

fn selector(select: &str) -> String {
    if select.trim().is_empty() { String::new() } else { format!("{{{select}}}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn exporters_are_told_apart_by_their_names() {
        let found = |given: &[&str]| {
            Exporter::among(&names(given)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let rss = "libvirt_domain_memory_stats_rss_bytes";
        assert_eq!(found(&[rss, INFO_MEMORY, EXPORTERS[1].allocated[0]]), ["inovex"]);
        assert_eq!(found(&[rss, INFO_MEMORY, EXPORTERS[2].allocated[0]]), ["tinkoff"]);
        assert_eq!(found(&[rss, INFO_MEMORY]), ["inovex", "tinkoff"]);
        assert_eq!(found(&[INFO_MEMORY, EXPORTERS[4].rss]), ["zhangjianweibj"]);
        assert_eq!(found(&[EXPORTERS[2].total, INFO_MEMORY]), [""; 0], "a total alone is no usage");
        assert_eq!(found(&[INFO_MEMORY]), [""; 0]);
        assert_eq!(Exporter::allocation_among(&names(&[INFO_MEMORY])), Some(INFO_MEMORY));
        assert!(Exporter::named("node").unwrap_err().ends_with("opennebula, kumina"));
    }

    #[test]
    fn queries_ask_for_peaks_of_what_is_there() {
        let tinkoff = Exporter::named("tinkoff").unwrap();
        let all = names(&[tinkoff.allocated[0], INFO_MEMORY, tinkoff.total, tinkoff.usable]);
        let queries = tinkoff.queries(300, "job=\"kvm\"", &all);
        assert_eq!(queries.len(), 2, "there is no resident set");
        assert_eq!(
            queries[0].1,
            "max by (domain, instance) (last_over_time(libvirt_domain_memory_stats_actual_balloon_bytes{job=\"kvm\"}[299999ms]) > 0) \
             or max by (domain, instance) (last_over_time(libvirt_domain_info_memory_usage_bytes{job=\"kvm\"}[299999ms]) > 0)"
        );
        assert_eq!(
            queries[1].1,
            "max by (domain, instance) (max_over_time(libvirt_domain_memory_stats_available_bytes{job=\"kvm\"}[299999ms]) > 0) - \
             min by (domain, instance) (min_over_time(libvirt_domain_memory_stats_usable_bytes{job=\"kvm\"}[299999ms]) > 0)"
        );
        let kubevirt = Exporter::named("kubevirt").unwrap();
        let label = |name: &str| {
            [("namespace", "team"), ("name", "web")]
                .into_iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value)
        };
        assert_eq!(kubevirt.machine(label), Machine { name: "team/web".to_owned(), place: String::new() });
    }
}
