//! Addresses: whose they are, where a redirect leads, and what of them must not be shown.

/// Scheme and host with port of an http address.
pub fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())?;
    matches!(scheme, "http" | "https").then_some((scheme, host))
}

pub fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('@') {
            Some((before, after)) if !before.contains('/') => format!("{scheme}://{after}"),
            _ => url.to_string(),
        },
        None => url.to_string(),
    }
}

/// Where a `Location` leads from `url`: absolute, a path on the same host, or one from the folder of `url`'s.
pub fn resolve(url: &str, location: &str) -> Option<String> {
    if origin(location).is_some() {
        return Some(location.to_string());
    }
    let (scheme, host) = origin(url)?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    // A colon in the first part is that of another scheme.
    let first = location.split(['/', '?', '#']).next().filter(|first| !first.is_empty());
    first.filter(|first| !first.contains(':'))?;
    let path = url[scheme.len() + 3 + host.len()..].split(['?', '#']).next()?;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{host}{folder}/{location}"))
}

/// A branch may have slashes in its name.
pub fn in_address(revision: &str) -> String {
    revision.replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve_and_hosts_compare_with_their_ports() {
        assert_eq!(resolve("http://a:1/x/y", "/z").as_deref(), Some("http://a:1/z"));
        assert_eq!(resolve("https://a/x", "//b/z").as_deref(), Some("https://b/z"));
        assert_eq!(resolve("https://a/x", "http://b/z").as_deref(), Some("http://b/z"));
        assert_eq!(
            resolve("https://a/x/y?p=q/r", "z?t").as_deref(),
            Some("https://a/x/z?t")
        );
        assert_eq!(resolve("https://a", "z").as_deref(), Some("https://a/z"));
        assert_eq!(resolve("https://a/x", "ftp://b/z"), None);
        assert_eq!(resolve("https://a/x", ""), None);
        assert_ne!(origin("http://a:1/x"), origin("http://a:2/x"));
        assert_ne!(origin("https://a.b/x"), origin("https://a.b.evil/x"));
        assert_eq!(origin("ftp://a"), None);
        assert_eq!(without_credentials("https://user:secret@host/x"), "https://host/x");
    }
}
