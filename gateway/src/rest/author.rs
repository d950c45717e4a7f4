//! Who makes a change: whoever has shown a token, whatever else he writes. Where nobody is asked for one, callers name
//! themselves: by the field `author` of a body, or by the header `x-memharvest-author`; otherwise the author is `anonymous`.

use http::HeaderMap;

use super::problem::Problem;
use crate::access::CALLER_HEADER;

/// The header.
pub(crate) const AUTHOR_HEADER: &str = "x-memharvest-author";
const LONGEST: usize = 128;

/// The author of a change: the caller who is known, or else the body's, the header's, or `anonymous`.
pub(crate) fn author_of(headers: &HeaderMap, body: Option<String>) -> Result<String, Problem> {
    if let Some(caller) = headers.get(CALLER_HEADER) {
        return Ok(String::from_utf8_lossy(caller.as_bytes()).into_owned());
    }
    let header = headers.get(AUTHOR_HEADER).map(http::HeaderValue::to_str).transpose();
    let header = header.map_err(|_| Problem::bad_field(AUTHOR_HEADER, "is no printable ASCII text"))?;
    let author = body.or_else(|| header.map(str::to_owned)).unwrap_or_else(|| "anonymous".into());
    if author.is_empty() || author.len() > LONGEST {
        return Err(Problem::bad_field("author", format!("must have 1 to {LONGEST} bytes")));
    }
    Ok(author)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_wins_over_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(author_of(&headers, None).unwrap(), "anonymous");
        headers.insert(AUTHOR_HEADER, "ann".parse().unwrap());
        assert_eq!(author_of(&headers, None).unwrap(), "ann");
        assert_eq!(author_of(&headers, Some("bob".into())).unwrap(), "bob");
        assert!(author_of(&headers, Some(String::new())).is_err());
        headers.insert(CALLER_HEADER, http::HeaderValue::from_bytes("zoë".as_bytes()).unwrap());
        assert_eq!(author_of(&headers, Some("bob".into())).unwrap(), "zoë");
    }
}
