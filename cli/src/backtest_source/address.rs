//! Where a Prometheus or a registry is.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// `http://HOST[:PORT][/PATH]` or `https://`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write it as http://127.0.0.1:9090";
        let uri: Uri = text.trim().parse().map_err(|error| format!("not a URL ({error}); {example}"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            _ => return Err(format!("has no http:// or https:// in front; {example}")),
        };
        let authority =
            uri.authority().filter(|found| !found.host().is_empty() && !found.as_str().contains('@'));
        let Some(authority) = authority else {
            return Err(format!("names no host, or holds a password, which is not sent; {example}"));
        };
        if uri.query().is_some() {
            return Err(format!("has a query; {example}"));
        }
        Ok(Self(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'))))
    }
}

impl Address {
    /// Whether it begins with `https://`.
    pub(super) fn with_tls(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_path_and_nothing_else() {
        let address = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(address("http://a:9090/"), Ok("http://a:9090".to_owned()));
        assert_eq!(address("https://a/prometheus/"), Ok("https://a/prometheus".to_owned()));
        for wrong in ["", "a:9090", "ftp://a", "http://u:p@a", "http://a?x=1", "http://a b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
