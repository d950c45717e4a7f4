//! Reads what a domain's XML says about its memory. Pure.

use std::time::Duration;

use roxmltree::{Document, Node};

use crate::reading::Definition;

/// Devices whose presence means that all guest memory is pinned for device access: (element, attribute, values).
const PASSTHROUGH: [(&str, &str, &[&str]); 3] = [
    ("hostdev", "type", &["pci", "mdev"]),
    ("interface", "type", &["hostdev", "vdpa"]),
    ("disk", "type", &["nvme", "vhostvdpa"]),
];

/// What the XML of a domain says about its memory.
///
/// # Errors
/// When the text is no XML document.
pub(super) fn parse(xml: &str) -> Result<Definition, roxmltree::Error> {
    let document = Document::parse(xml)?;
    let domain = document.root_element();
    let backing = child(domain, "memoryBacking");
    let backed = |name: &str| backing.is_some_and(|backing| child(backing, name).is_some());
    let devices = child(domain, "devices");
    let balloon = devices
        .and_then(|devices| child(devices, "memballoon"))
        .filter(|balloon| balloon.attribute("model").is_some_and(|model| model != "none"));
    Ok(Definition {
        balloon: balloon.is_some(),
        stats_period: balloon.and_then(stats_period),
        free_page_reporting: balloon.and_then(|node| node.attribute("freePageReporting")) == Some("on"),
        hugepages: backed("hugepages"),
        private_memory: child(domain, "launchSecurity").is_some(),
        locked: backed("locked"),
        passthrough: devices.is_some_and(has_passthrough),
    })
}

fn stats_period(balloon: Node<'_, '_>) -> Option<Duration> {
    let seconds: u64 = child(balloon, "stats")?.attribute("period")?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn has_passthrough(devices: Node<'_, '_>) -> bool {
    devices.children().any(|device| {
        PASSTHROUGH.iter().any(|(element, attribute, values)| {
            device.has_tag_name(*element)
                && device.attribute(*attribute).is_some_and(|value| values.contains(&value))
        })
    })
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn define(inner: &str) -> Definition {
        parse(&format!("<domain type='kvm' id='3'><name>a</name>{inner}</domain>")).unwrap()
    }

    #[test]
    fn a_balloon_with_a_period() {
        let definition = define(
            "<devices><memballoon model='virtio' freePageReporting='on'><stats period='2'/></memballoon></devices>",
        );
        let expected = Definition {
            balloon: true,
            stats_period: Some(Duration::from_secs(2)),
            free_page_reporting: true,
            ..Definition::default()
        };
        assert_eq!(definition, expected);
    }

    #[test]
    fn a_balloon_that_is_never_asked() {
        for inner in
            ["<memballoon model='virtio'/>", "<memballoon model='virtio'><stats period='0'/></memballoon>"]
        {
            let definition = define(&format!("<devices>{inner}</devices>"));
            assert!(definition.balloon, "{inner}");
            assert_eq!(definition.stats_period, None, "{inner}");
        }
    }

    #[test]
    fn no_balloon() {
        for inner in ["", "<devices/>", "<devices><memballoon model='none'/></devices>"] {
            assert_eq!(define(inner), Definition::default(), "{inner}");
        }
    }

    #[test]
    fn memory_that_the_resident_set_does_not_tell() {
        assert!(
            define("<memoryBacking><hugepages><page size='1' unit='G'/></hugepages></memoryBacking>")
                .hugepages
        );
        assert!(define("<memoryBacking><locked/></memoryBacking>").locked);
        for kind in ["sev", "sev-snp", "tdx", "s390-pv"] {
            assert!(define(&format!("<launchSecurity type='{kind}'/>")).private_memory, "{kind}");
        }
    }

    #[test]
    fn devices_that_pin_memory() {
        for device in [
            "<hostdev mode='subsystem' type='pci' managed='yes'/>",
            "<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>",
            "<interface type='hostdev'/>",
            "<interface type='vdpa'/>",
            "<disk type='nvme' device='disk'/>",
        ] {
            assert!(define(&format!("<devices>{device}</devices>")).pinned(), "{device}");
        }
        assert!(
            !define("<devices><hostdev mode='subsystem' type='usb'/><interface type='network'/></devices>")
                .pinned()
        );
    }

    #[test]
    fn what_is_no_xml_is_refused() {
        assert!(parse("<domain>").is_err());
        assert!(parse("").is_err());
    }
}
