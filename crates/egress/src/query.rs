//! The query of a request, and the escapes in it.

/// A byte as it stands where nothing has a meaning (RFC 3986, section 2.3).
pub(crate) fn escaped_byte(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

/// A text as it stands where nothing has a meaning.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().map(escaped_byte).collect()
}

/// A text without its escapes. What only looks like one stays.
pub(crate) fn unescaped(text: &str) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digit = |place: usize| more.get(place).and_then(|letter| char::from(*letter).to_digit(16));
        let value = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match value.filter(|_| *first == b'%') {
            Some(byte) => {
                plain.push(byte);
                rest = more.get(2..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = more;
            }
        }
    }
    plain
}

/// The name of a parameter, as whoever reads it takes it.
fn name(piece: &str) -> String {
    let name = piece.split('=').next().unwrap_or(piece).replace('+', " ");
    String::from_utf8_lossy(&unescaped(&name)).trim().to_ascii_lowercase()
}

/// A query without a parameter, however it is spelled, with this one at its end.
pub(crate) fn set(query: &str, wanted: &str, value: &str) -> String {
    // `;` divides parameters for some readers.
    let mut left = String::with_capacity(query.len());
    for piece in query.split_inclusive(['&', ';']) {
        let bare = piece.trim_end_matches(['&', ';']);
        if name(bare) != wanted.to_ascii_lowercase() {
            left.push_str(piece);
        }
    }
    if !left.is_empty() && !left.ends_with('&') {
        left.push('&');
    }
    format!("{left}{}={}", escaped(wanted), escaped(value))
}

/// Whether a word is in one of the named parameters of a query.
pub(crate) fn has(query: &str, names: &[String], word: &str) -> bool {
    let pairs = query.split('&').filter_map(|piece| piece.split_once('='));
    pairs.into_iter().any(|(key, text)| text.contains(word) && is_one_of(key, names))
}

/// Whether that is the name of one of these parameters, however it is spelled.
pub(crate) fn is_one_of(key: &str, names: &[String]) -> bool {
    let key = unescaped(key);
    names.iter().any(|name| name.as_bytes() == key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn g04_a_parameter_is_replaced_however_it_is_spelled() {
        for (query, becomes) in [
            ("", "key=a%2Fb%26c%3D%20%0D%0A"),
            ("q=1", "q=1&key=V"),
            ("key=mine", "key=V"),
            ("key=mine&q=1&key=again", "q=1&key=V"),
            ("k%65y=mine&q=1", "q=1&key=V"),
            ("KEY=mine", "key=V"),
            ("+key=mine&%20key=x", "key=V"),
            ("q=1;key=mine", "q=1;&key=V"),
            ("q=1;key=mine&r=2", "q=1;r=2&key=V"),
            ("key", "key=V"),
            ("keys=1&akey=2", "keys=1&akey=2&key=V"),
        ] {
            let value = "a/b&c= \r\n";
            assert_eq!(set(query, "key", value), becomes.replace('V', &escaped(value)), "{query}");
        }
    }

    #[test]
    fn g04_a_word_is_found_in_the_parameters_that_are_named_and_in_no_others() {
        let names = ["key".to_owned()];
        for (query, there) in [
            ("key=bwp_1&q=bwp_1", true),
            ("q=1&key=a-bwp_1-bwp_1", true),
            ("%6bey=bwp_1", true),
            ("q=bwp_1", false),
            ("bwp_1=key", false),
            ("key=bwp_2", false),
            ("", false),
        ] {
            assert_eq!(has(query, &names, "bwp_1"), there, "{query}");
        }
    }
}
