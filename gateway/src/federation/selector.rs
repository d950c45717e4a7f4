//! Selectors of series, in Prometheus' syntax: `name{label="value", other=~"regex"}`.
//!
//! They mean what they mean there: a label that a series does not have is the empty text, regular expressions are RE2's
//! and must match a whole value, and a series is chosen where one selector fits whole.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

mod scanner;

use scanner::Scanner;

/// The label that holds a metric's name.
const NAME: &str = "__name__";
/// What a compiled regular expression may take; one that needs more would also take long.
const REGEX_BYTES: usize = 256 * 1024;

/// One selector: every matcher must fit.
#[derive(Debug)]
pub(crate) struct Selector {
    matchers: Vec<Matcher>,
}

/// A condition on one label.
#[derive(Debug)]
pub(crate) struct Matcher {
    label: String,
    rule: Rule,
    /// Whether the rule must hold or must not.
    wanted: bool,
}

#[derive(Debug)]
enum Rule {
    Is(String),
    Matches(Regex),
}

impl Matcher {
    fn fits(&self, value: &str) -> bool {
        let holds = match &self.rule {
            Rule::Is(text) => text == value,
            Rule::Matches(regex) => regex.is_match(value),
        };
        holds == self.wanted
    }
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// Names the place of the first mistake, counted in characters from 1, and what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut scanner = Scanner::new(text);
        let mut matchers = Vec::new();
        let name = scanner.name(true);
        if let Some(name) = name {
            matchers.push(Matcher { label: NAME.into(), rule: Rule::Is(name.into()), wanted: true });
        }
        if scanner.take("{") {
            while !scanner.take("}") {
                matchers.push(matcher(&mut scanner)?);
                if !scanner.take(",") && !scanner.at("}") {
                    return Err(scanner.wrong("`,` or `}` is missing"));
                }
            }
        } else if name.is_none() {
            return Err(scanner.wrong("a metric's name or `{` is missing"));
        }
        if !scanner.is_at_end() {
            return Err(scanner.wrong("the selector should end here"));
        }
        if name.is_some() && matchers.iter().skip(1).any(|matcher| matcher.label == NAME) {
            return Err("the metric's name is given twice, before the braces and within".into());
        }
        Ok(Self { matchers })
    }

    /// What is left to check on the series of a metric; `None` where its name does not fit.
    fn of_metric(&self, name: &str) -> Option<Vec<&Matcher>> {
        let (of_name, others): (Vec<&Matcher>, Vec<&Matcher>) =
            self.matchers.iter().partition(|matcher| matcher.label == NAME);
        of_name.iter().all(|matcher| matcher.fits(name)).then_some(others)
    }
}

fn matcher(scanner: &mut Scanner<'_>) -> Result<Matcher, String> {
    let label = scanner.name(false).ok_or_else(|| scanner.wrong("a label's name is missing"))?.to_owned();
    let (is_regex, wanted) = if scanner.take("=~") {
        (true, true)
    } else if scanner.take("!~") {
        (true, false)
    } else if scanner.take("!=") {
        (false, false)
    } else if scanner.take("=") {
        (false, true)
    } else {
        return Err(scanner.wrong("one of = != =~ !~ is missing"));
    };
    let value = scanner.quoted()?;
    let rule = if is_regex { Rule::Matches(anchored(&value)?) } else { Rule::Is(value) };
    Ok(Matcher { label, rule, wanted })
}

fn anchored(pattern: &str) -> Result<Regex, String> {
    // Compiled alone first: `a)(b` must not become well-formed by being put into a group.
    let build = |pattern: Cow<'_, str>| RegexBuilder::new(&pattern).size_limit(REGEX_BYTES).build();
    build(pattern.into()).and_then(|_| build(format!("^(?:{pattern})$").into())).map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => format!("the regular expression `{pattern}` is too large"),
            error => {
                let last = error.to_string().lines().last().unwrap_or_default().to_owned();
                format!("`{pattern}` is no regular expression: {}", last.trim_start_matches("error: "))
            }
        },
    )
}

/// What a set of selectors asks of the series of one metric.
#[derive(Debug)]
pub(crate) struct Narrowed<'a>(Vec<Vec<&'a Matcher>>);

impl<'a> Narrowed<'a> {
    /// `None` where no selector fits the metric's name.
    pub(crate) fn new(selectors: &'a [Selector], name: &str) -> Option<Self> {
        let fitting: Vec<_> = selectors.iter().filter_map(|selector| selector.of_metric(name)).collect();
        (!fitting.is_empty()).then_some(Self(fitting))
    }

    /// Whether a series with these labels is chosen.
    pub(crate) fn fits(&self, labels: &[(&str, &str)]) -> bool {
        let value =
            |label: &str| labels.iter().find(|(name, _)| *name == label).map_or("", |(_, value)| value);
        self.0.iter().any(|matchers| matchers.iter().all(|matcher| matcher.fits(value(&matcher.label))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: (&str, &[(&str, &str)]) =
        ("memharvest_vm_info", &[("host", "rack-1.a"), ("name", "a\"b\n")]);

    fn chosen(selectors: &[&str]) -> bool {
        let selectors: Vec<Selector> = selectors
            .iter()
            .map(|text| Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")))
            .collect();
        Narrowed::new(&selectors, SERIES.0).is_some_and(|narrowed| narrowed.fits(SERIES.1))
    }

    #[test]
    fn selectors_choose_as_prometheus_does() {
        for fits in [
            "memharvest_vm_info",
            " memharvest_vm_info { } ",
            r#"memharvest_vm_info{host="rack-1.a"}"#,
            r#"{__name__="memharvest_vm_info",}"#,
            r#"{__name__=~"memharvest_.+",host!="b",host=~"rack-[0-9][.]a"}"#,
            r#"memharvest_vm_info{absent=""}"#,
            r#"memharvest_vm_info{absent!="x",absent!~".+"}"#,
            r"{name='a\x22b\n'}",
            "{name=~`a\"b\\n`}",
            r#"{host=~"b|rack-1[.]a"}"#,
            "{}",
            "# all of them\n{host!=\"\"} # indeed",
        ] {
            assert!(chosen(&[fits]), "{fits}");
        }
        for other in [
            "memharvest_vm",
            r#"memharvest_vm_info{host="rack-1"}"#,
            r#"{__name__=~"memharvest_vm"}"#,
            r#"{host=~"rack-1"}"#,
            r#"{host=~"a|b"}"#,
            r#"{host!~".*"}"#,
            r#"{absent!=""}"#,
        ] {
            assert!(!chosen(&[other]), "{other}");
        }
        assert!(chosen(&["up", r#"{host=~"rack.*"}"#]), "one of several is enough");
        assert!(!chosen(&["up", "down"]));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, expected) in [
            ("", "1: a metric's name or `{` is missing"),
            ("-x", "1: a metric's name or `{` is missing"),
            ("{a}", "3: one of = != =~ !~ is missing"),
            ("{a=b}", "4: a quoted text is missing"),
            (r#"{a="b"#, "4: the text is not closed"),
            (r#"{a="b" c="d"}"#, "8: `,` or `}` is missing"),
            ("{,}", "2: a label's name is missing"),
            (r#"up{a="b"}[5m]"#, "10: the selector should end here"),
            (r#"up{__name__="down"}"#, "the metric's name is given twice, before the braces and within"),
            (r#"{a="\q"}"#, "5: there is no escape `\\q`"),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err(), expected, "{text}");
        }
        for (pattern, expected) in
            [("(", "unclosed group"), ("a)(b", "unopened group"), ("a{1000}{1000}", "too large")]
        {
            let error = Selector::parse(&format!("{{a=~\"{pattern}\"}}")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
