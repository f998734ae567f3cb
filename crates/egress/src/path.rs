//! The path of a request in the one spelling in which rules are held against it.

/// The path as matchers see it: what needs no escape has none (RFC 3986, section 6.2.2.2). Nothing where two
/// readers could take it for two places: dot segments, empty ones, backslashes, control characters, broken
/// escapes. An escaped slash stays one (a package's name has it, `/@scope%2Fname`), and divides segments here as
/// well, for some servers read it so.
pub(crate) fn plain(path: &str) -> Option<String> {
    let mut plain = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    if bytes.next() != Some(b'/') {
        return None;
    }
    plain.push('/');
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |letter: Option<u8>| (letter? as char).to_digit(16);
                let value = u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?;
                match value {
                    b'\\' | ..=0x1f | 0x7f => return None,
                    b'-' | b'.' | b'_' | b'~' => plain.push(char::from(value)),
                    letter if letter.is_ascii_alphanumeric() => plain.push(char::from(letter)),
                    other => plain.push_str(&format!("%{other:02X}")),
                }
            }
            b'\\' | b'?' | b'#' | ..=0x20 | 0x7f.. => return None,
            other => plain.push(char::from(other)),
        }
    }
    let divided = plain.get(1..)?.replace("%2F", "/").replace("%3B", ";");
    let mut segments = divided.split('/').peekable();
    while let Some(segment) = segments.next() {
        // `;` begins parameters of a segment for some servers: `..;` is `..` to them.
        let name = segment.split(';').next().unwrap_or(segment);
        let last = segments.peek().is_none();
        if matches!(name, "." | "..") || (name.is_empty() && !(last && segment.is_empty())) {
            return None;
        }
    }
    Some(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn g04_a_path_has_one_spelling_or_none() {
        for (written, read) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a/", Some("/a/")),
            ("/%61%2D/%7e", Some("/a-/~")),
            ("/a%20b/%c3%bc", Some("/a%20b/%C3%BC")),
            ("/v1/x.git", Some("/v1/x.git")),
            ("/...", Some("/...")),
            ("/a;v=1/b", Some("/a;v=1/b")),
            ("/@scope%2fname", Some("/@scope%2Fname")),
            ("/a%2fb", Some("/a%2Fb")),
            ("/a%2eb", Some("/a.b")),
            ("/a/..%2fb", None),
            ("/a%2f..", None),
            ("/a%2f%2e/b", None),
            ("/a%2f%2fb", None),
            ("/%2fa", None),
            ("/a/../b", None),
            ("/a/..;/b", None),
            ("/a/.;x/b", None),
            ("/a/..%3b/b", None),
            ("/a/..%3Bx/b", None),
            ("/a/%2e%2e/b", None),
            ("/a/.%2E", None),
            ("/a%5cb", None),
            ("/a\\b", None),
            ("//a", None),
            ("/a//b", None),
            ("/a/;/b", None),
            ("/a%00", None),
            ("/a%", None),
            ("/a%4", None),
            ("/a%zz", None),
            ("/a b", None),
            ("/a?b", None),
            ("/\u{fc}", None),
            ("a", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(plain(written).as_deref(), read, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn g04_a_spelling_is_its_own(text in "/[a-z./%2eE5cC;~ -]{0,24}") {
            if let Some(read) = plain(&text) {
                prop_assert_eq!(plain(&read), Some(read.clone()));
                prop_assert!(!read.contains("/../") && !read.contains("//") && !read.ends_with("/.."));
            }
        }
    }
}
