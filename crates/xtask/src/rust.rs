//! As much of Rust's lexical grammar as the checks need: what is code, what is a comment, what is a
//! string; which lines are tests; which functions are tests. No parser: a check that needs one belongs in
//! the compiler.

/// A Rust file, seen in two ways.
pub(crate) struct Source {
    /// The text with comments and the contents of strings blanked out; every character keeps its place.
    pub(crate) code: String,
    /// String literals, with the line that each begins on.
    pub(crate) strings: Vec<(usize, String)>,
    test_lines: Vec<bool>,
}

/// A test function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) line: usize,
    pub(crate) name: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, strings) = mask(text);
        let all_tests = path.contains("/tests/") || path.contains("/benches/") || path.ends_with("/tests.rs");
        let lines = text.lines().count();
        let test_lines = if all_tests { vec![true; lines + 1] } else { test_lines(&code, lines) };
        Self { code, strings, test_lines }
    }

    /// Whether a line (from 1) is in a test module or a test file.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// The code, line by line, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(n, line)| (n + 1, line))
    }

    /// Lines that are no tests.
    pub(crate) fn lines_without_tests(&self) -> usize {
        self.lines().filter(|(n, _)| !self.is_test(*n)).count()
    }

    /// Functions under an attribute that ends in `test`, such as `#[test]` or `#[tokio::test(…)]`.
    pub(crate) fn tests(&self) -> Vec<Test> {
        let mut tests = Vec::new();
        let mut marked = false;
        for (line, code) in self.lines() {
            let code = code.trim_start();
            if let Some(attribute) = code.strip_prefix("#[") {
                let path = attribute.split(['(', ']', ' ']).next().unwrap_or_default();
                marked |= path == "test" || path.ends_with("::test");
                continue;
            }
            if let Some(name) = function_name(code) {
                if marked {
                    tests.push(Test { line, name: name.to_owned() });
                }
                marked = false;
            }
        }
        tests
    }
}

fn function_name(code: &str) -> Option<&str> {
    let before = ["pub(crate) ", "pub ", "async ", "unsafe "];
    let mut rest = code;
    while let Some(shorter) = before.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = shorter;
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Whether `word` stands in the code as a word of its own.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(part) && !code[at + word.len()..].chars().next().is_some_and(part)
    })
}

fn test_lines(code: &str, lines: usize) -> Vec<bool> {
    let mut is_test = vec![false; lines + 1];
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let begin = from + found;
        let end = end_of_item(code, begin + "#[cfg(test)]".len());
        let first = code[..begin].matches('\n').count();
        let last = code[..end].matches('\n').count();
        for line in &mut is_test[first..=last.min(lines)] {
            *line = true;
        }
        from = end.max(begin + 1);
    }
    is_test
}

/// Where the item ends that begins at `from`: at its semicolon, or at the brace that closes its first.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at,
            _ => {}
        }
    }
    code.len()
}

/// Blanks out comments and strings.
fn mask(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let after_word = code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (token, kind) = next(rest, after_word);
        match kind {
            Kind::Code => code.push_str(token),
            Kind::Comment => blank(&mut code, token),
            Kind::Text { open, close } => {
                code.push_str(&token[..open]);
                let inner = &token[open..token.len() - close];
                strings.push((line, inner.to_owned()));
                blank(&mut code, inner);
                code.push_str(&token[token.len() - close..]);
            }
        }
        line += token.matches('\n').count();
        rest = &rest[token.len()..];
    }
    (code, strings)
}

fn blank(code: &mut String, text: &str) {
    code.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

enum Kind {
    Code,
    Comment,
    /// A literal; how many bytes open and close it.
    Text {
        open: usize,
        close: usize,
    },
}

fn next(rest: &str, after_word: bool) -> (&str, Kind) {
    if rest.starts_with("//") {
        let end = rest.find('\n').unwrap_or(rest.len());
        return (&rest[..end], Kind::Comment);
    }
    if rest.starts_with("/*") {
        return (&rest[..end_of_block_comment(rest)], Kind::Comment);
    }
    if !after_word && let Some((open, hashes)) = raw_string(rest) {
        let close = format!("\"{}", "#".repeat(hashes));
        let end = rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len());
        return (&rest[..end], Kind::Text { open, close: close.len().min(end - open) });
    }
    if rest.starts_with('"') {
        let end = end_of_escaped(rest, '"');
        return (&rest[..end], Kind::Text { open: 1, close: usize::from(end > 1) });
    }
    if rest.starts_with('\'') {
        // A character or a lifetime: a lifetime has no closing quote after one character.
        let mut chars = rest.chars().skip(1);
        let is_char = match chars.next() {
            Some('\\') => true,
            Some(_) => chars.next() == Some('\''),
            None => false,
        };
        if is_char {
            let end = end_of_escaped(rest, '\'');
            return (&rest[..end], Kind::Comment);
        }
    }
    let first = rest.chars().next().map_or(1, char::len_utf8);
    (&rest[..first], Kind::Code)
}

fn end_of_block_comment(rest: &str) -> usize {
    let mut depth = 0usize;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"`, `br#"` and so on: how long the opening is, and how many hashes it has.
fn raw_string(rest: &str) -> Option<(usize, usize)> {
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| rest.starts_with(prefix))?;
    let hashes = rest[prefix.len()..].bytes().take_while(|byte| *byte == b'#').count();
    let quote = prefix.len() + hashes;
    rest[quote..].starts_with('"').then_some((quote + 1, hashes))
}

fn end_of_escaped(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code_and_keep_their_place() {
        let text = "let a = \"unsafe // no\"; // unsafe\n/* unsafe /* nested */ */ let b = r#\"un\"safe\"#;\nlet c = '\"'; fn f<'a>() {}\n";
        let source = Source::new("crates/a/src/lib.rs", text);
        assert!(!source.code.contains("unsafe"), "{}", source.code);
        assert_eq!(source.code.len(), text.len());
        assert!(source.code.contains("let b") && source.code.contains("fn f<'a>() {}"), "{}", source.code);
        assert_eq!(source.strings, [(1, "unsafe // no".to_owned()), (2, "un\"safe".to_owned())]);
    }

    #[test]
    fn an_escaped_quote_ends_nothing() {
        let source = Source::new("x.rs", r#"let a = "one \" two"; let b = b"three"; call()"#);
        assert_eq!(source.strings, [(1, r#"one \" two"#.to_owned()), (1, "three".to_owned())]);
        assert!(source.code.ends_with("call()"));
    }

    #[test]
    fn test_modules_are_not_counted() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { let x = \"}\"; }\n}\nfn c() {}\n";
        let source = Source::new("crates/a/src/lib.rs", text);
        let tests: Vec<_> = (1..=6).filter(|n| source.is_test(*n)).collect();
        assert_eq!(tests, [2, 3, 4, 5]);
        assert_eq!(source.lines_without_tests(), 2);
        assert_eq!(Source::new("crates/a/tests/it/main.rs", text).lines_without_tests(), 0);
        let elsewhere = Source::new("crates/a/src/lib.rs", "#[cfg(test)]\nmod tests;\nfn c() {}\n");
        assert_eq!(elsewhere.lines_without_tests(), 1);
    }

    #[test]
    fn tests_are_found_under_any_test_attribute() {
        let text = "#[test]\nfn a01_x() {}\n#[tokio::test(flavor = \"multi_thread\")]\n#[allow(dead_code)]\nasync fn a02_y() {\n}\nfn not_one() {}\n";
        let names: Vec<_> = Source::new("crates/a/src/lib.rs", text).tests().into_iter().map(|t| t.name).collect();
        assert_eq!(names, ["a01_x", "a02_y"]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe { }", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(has_word("(todo!())", "todo"));
    }
}
