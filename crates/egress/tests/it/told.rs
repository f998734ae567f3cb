//! What a host is told, read by somebody who takes nothing that two readers could take for two things. Shared with the
//! fuzz target of the gate.

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: String,
    pub(crate) authorization: Vec<String>,
}

/// The first request in `bytes`, and how long it is; nothing while it is not whole.
///
/// # Errors
/// What could be read in another way.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<(Told, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    // A header's value may have bytes beyond ASCII, each of which is one (RFC 9110, section 5.5).
    let head: String = bytes[..end].iter().copied().map(char::from).collect();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    if head.replace("\r\n", "").contains(|letter: char| letter.is_ascii_control() && letter != '\t') {
        return Err(format!("a control character: {head:?}"));
    }
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("no request line: {line:?}"));
    };
    if !is_token(method) || !target.is_ascii() || !target.starts_with('/') || target.contains('#') {
        return Err(format!("another request line: {line:?}"));
    }
    let (mut host, mut length, mut chunked, mut authorization) = (None, None, None, Vec::new());
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no header: {line:?}"))?;
        if !is_token(name) {
            return Err(format!("no header's name: {name:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        let place = match name.to_ascii_lowercase().as_str() {
            "host" => &mut host,
            "authorization" => {
                authorization.push(value.to_owned());
                continue;
            }
            "content-length" => &mut length,
            "transfer-encoding" => &mut chunked,
            _ => continue,
        };
        if place.replace(value.to_owned()).is_some() {
            return Err(format!("{name} twice"));
        }
    }
    let host = host.ok_or("no host")?;
    let told = Told { method: method.to_owned(), target: target.to_owned(), host, authorization };
    let body = &bytes[end + 4..];
    let length = match (length, chunked.as_deref()) {
        (None, None) => Some(0),
        (Some(length), None) => {
            let digits = !length.is_empty() && length.bytes().all(|digit| digit.is_ascii_digit());
            let length: usize = length.parse().ok().filter(|_| digits).ok_or(format!("a length: {length:?}"))?;
            (body.len() >= length).then_some(length)
        }
        (None, Some("chunked")) => chunks(body)?,
        other => return Err(format!("a body of {other:?}")),
    };
    Ok(length.map(|length| (told, end + 4 + length)))
}

/// How long a body in chunks is, with its end, if it is all there.
fn chunks(body: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let rest = &body[at..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let hex = (1..=8).contains(&size.len()) && size.bytes().all(|digit| digit.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| hex).ok_or(format!("a chunk of {size:?}"))?;
        at += end + 2;
        // Trailers are what nobody sent on.
        let whole = body.len() >= at + size + 2;
        match body.get(at + size..at + size + 2) {
            _ if !whole => return Ok(None),
            Some(b"\r\n") if size == 0 => return Ok(Some(at + 2)),
            Some(b"\r\n") => at += size + 2,
            other => return Err(format!("after a chunk {other:?}")),
        }
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether a target's path lies under one of these, also for whoever decodes it first.
pub(crate) fn lies_under(target: &str, prefixes: &[&str]) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let decoded = decoded(path);
    let wanders = |path: &str| path.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."));
    prefixes.iter().any(|prefix| path.starts_with(prefix)) && !wanders(path) && !wanders(&decoded)
}

fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let (mut plain, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let escaped = || u8::from_str_radix(std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?, 16).ok();
        match (byte, escaped()) {
            (b'%', Some(value)) => {
                plain.push(value);
                at += 3;
            }
            _ => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}
