//! Where a Prometheus or a registry is.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// `http://HOST[:PORT][/PATH]`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write it as http://127.0.0.1:9090";
        let uri: Uri = text.trim().parse().map_err(|error| format!("not a URL ({error}); {example}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("this version speaks plain http only; put a proxy or a tunnel in front".into());
            }
            _ => return Err(format!("has no http:// in front; {example}")),
        }
        let authority =
            uri.authority().filter(|found| !found.host().is_empty() && !found.as_str().contains('@'));
        let Some(authority) = authority else {
            return Err(format!("names no host, or holds a password, which is not sent; {example}"));
        };
        if uri.query().is_some() {
            return Err(format!("has a query; {example}"));
        }
        Ok(Self(format!("http://{authority}{}", uri.path().trim_end_matches('/'))))
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
        assert_eq!(address("http://a/prometheus/"), Ok("http://a/prometheus".to_owned()));
        for wrong in ["", "a:9090", "ftp://a", "http://u:p@a", "http://a?x=1", "https://a", "http://a b"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
