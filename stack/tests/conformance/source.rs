//! The sources, as far as the paper needs them: which items a file has, and which tests assert.
//!
//! Words and braces, without comments and literals: no parser, since tests stand in macros too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where the modules of a test's path begin: the first word of the path, and the folder.
const TARGETS: [(&str, &str); 10] = [
    ("scenarios", "stack/tests/scenarios"),
    ("conformance", "stack/tests/conformance"),
    ("differential", "stack/tests/differential"),
    ("lossy", "stack/tests/lossy"),
    ("oracle", "stack/tests"),
    ("fuzz_bodies", "stack/tests"),
    ("kernel_peer", "apps/tests/kernel_peer"),
    ("programs", "apps/tests"),
    ("figures", "apps/tests"),
    ("packetdrill", "apps/packetdrill/src"),
];

/// Where a path begins that names no target: the library.
const LIBRARY: &str = "stack/src";

/// Helpers that are asked for whether they assert: those that a test calls, and what these call.
const DEPTH: u32 = 2;

/// Files read so far, under the root of the workspace.
pub struct Tree {
    root: PathBuf,
    files: HashMap<PathBuf, Source>,
}

impl Tree {
    pub fn new(root: PathBuf) -> Self {
        Self { root, files: HashMap::new() }
    }

    /// Whether a file has an item: `name`, or `Type::name` for what is in a type or an impl of it.
    pub fn item(&mut self, file: &str, item: &str) -> Result<(), String> {
        let path = self.root.join(file);
        let source = self.read(&path).ok_or_else(|| format!("there is no {file}"))?;
        let has = match item.split_once("::") {
            Some((owner, name)) => source.has_member(owner, name),
            None => source.has_item(item),
        };
        if has { Ok(()) } else { Err(format!("{file} has no {item}")) }
    }

    /// Whether there is a test of this path, or script of this name, that asserts something.
    pub fn test(&mut self, path: &str) -> Result<(), String> {
        if path.ends_with(".pkt") {
            let script = fs::read_to_string(self.root.join(path)).unwrap_or_default();
            let expects = script.lines().any(|line| line.contains('>'));
            return if expects {
                Ok(())
            } else {
                Err(format!("no script {path} expects anything"))
            };
        }
        let (modules, name) =
            path.rsplit_once("::").ok_or_else(|| format!("{path} is no path of a test"))?;
        let (file, inner) = self.locate(modules).ok_or_else(|| format!("no file has {path}"))?;
        let source = &self.files[&file];
        if let Some(module) = inner.iter().find(|module| !source.has_item(module)) {
            return Err(format!("{} has no module {module}", file.display()));
        }
        let test =
            source.functions.iter().find(|function| function.name == name && function.is_test);
        let test = test.ok_or_else(|| format!("{} has no test {name}", file.display()))?;
        if test.is_ignored {
            return Err(format!("{path} is ignored"));
        }
        let calls = test.calls.clone();
        if test.asserts || self.one_asserts(&file, calls) {
            return Ok(());
        }
        Err(format!("{path} asserts nothing"))
    }

    /// The file that the last of these modules has, or that has it inside; and those inside.
    fn locate(&mut self, modules: &str) -> Option<(PathBuf, Vec<String>)> {
        let all: Vec<&str> = modules.split("::").collect();
        let target = TARGETS.iter().find(|(name, _)| *name == all[0]);
        let (folder, names) = match target {
            // The file of a target that has one file is named like it.
            Some((_, folder)) if folder.ends_with("tests") => (folder, &all[..]),
            Some((_, folder)) => (folder, &all[1..]),
            None => (&LIBRARY, &all[..]),
        };
        let folder = self.root.join(folder);
        (0..=names.len()).rev().find_map(|n| {
            let (outer, inner) = names.split_at(n);
            let path = outer.iter().fold(folder.clone(), |path, name| path.join(name));
            let candidates = if n == 0 {
                vec![path.join("main.rs")]
            } else {
                vec![path.with_extension("rs"), path.join("mod.rs"), path.join("main.rs")]
            };
            let file = candidates.into_iter().find(|file| self.read(file).is_some())?;
            Some((file, inner.iter().map(|name| (*name).to_owned()).collect()))
        })
    }

    /// Whether one of these functions asserts, or one that it calls: those in the file, in the
    /// folder, and in the module above it.
    fn one_asserts(&mut self, file: &Path, calls: HashSet<String>) -> bool {
        let helpers = self.helpers(file);
        let mut calls = calls;
        for _ in 0..DEPTH {
            let called: Vec<Function> = (helpers.iter())
                .flat_map(|file| &self.files[file].functions)
                .filter(|function| !function.is_test && calls.contains(&function.name))
                .cloned()
                .collect();
            if called.iter().any(|function| function.asserts) {
                return true;
            }
            calls = called.into_iter().flat_map(|function| function.calls).collect();
        }
        false
    }

    /// The files in which helpers of a test stand.
    fn helpers(&mut self, file: &Path) -> Vec<PathBuf> {
        let folder = file.parent().expect("a file is in a folder");
        let mut folders = vec![folder.to_owned(), folder.join("dsl")];
        let mut files = vec![file.to_owned()];
        // Unit tests beside the code have their helpers beside them; the code is none.
        let is_tests = |path: &Path| {
            path.components().any(|part| {
                ["tests", "scenario", "scenarios"].iter().any(|name| part.as_os_str() == *name)
            })
        };
        folders.retain(|folder| is_tests(folder));
        if is_tests(folder) {
            files.push(folder.with_extension("rs"));
        }
        for folder in folders {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path()));
        }
        files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
        files.retain(|file| self.read(file).is_some());
        files
    }

    fn read(&mut self, path: &Path) -> Option<&Source> {
        if !self.files.contains_key(path) {
            let source = Source::new(&fs::read_to_string(path).ok()?);
            self.files.insert(path.to_owned(), source);
        }
        self.files.get(path)
    }
}

/// A function, in a macro or not.
#[derive(Clone, Debug)]
struct Function {
    name: String,
    /// Its place among the tokens.
    at: usize,
    is_test: bool,
    is_ignored: bool,
    /// It has an assertion of its own.
    asserts: bool,
    /// The names of what it calls.
    calls: HashSet<String>,
}

/// A file: its words and marks, and the functions among them.
struct Source {
    tokens: Vec<String>,
    functions: Vec<Function>,
}

impl Source {
    fn new(text: &str) -> Self {
        let tokens = tokens(text);
        let functions = functions(&tokens);
        Self { tokens, functions }
    }

    /// Whether a function, constant, type or module of this name is defined.
    fn has_item(&self, name: &str) -> bool {
        const KEYWORDS: [&str; 9] =
            ["fn", "const", "static", "struct", "enum", "trait", "type", "mod", "union"];
        self.tokens.windows(2).any(|pair| KEYWORDS.contains(&&*pair[0]) && pair[1] == name)
    }

    /// Whether a type has a field or variant of this name, or an impl of it a function or constant.
    /// A type that a macro makes is in the braces of `type! { … }`.
    fn has_member(&self, owner: &str, name: &str) -> bool {
        let made_by = owner.to_lowercase();
        let is_in = |block: Range<usize>| self.tokens[block].iter().any(|token| token == name);
        self.blocks(&["struct", "enum", "trait"], owner).any(is_in)
            || self.blocks(&[&*made_by], "!").any(is_in)
            || self.blocks(&["impl"], owner).any(|block| {
                self.tokens[block]
                    .windows(2)
                    .any(|pair| ["fn", "const"].contains(&&*pair[0]) && pair[1] == name)
            })
    }

    /// The bodies of what begins with one of these keywords and has this name before its body.
    fn blocks<'a>(
        &'a self,
        keywords: &'a [&str],
        name: &'a str,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let starts = (0..self.tokens.len()).filter(|&at| keywords.contains(&&*self.tokens[at]));
        starts.filter_map(move |at| {
            let body = body(&self.tokens, at)?;
            self.tokens[at..body.start].iter().any(|token| token == name).then_some(body)
        })
    }
}

/// The braces that follow, unless the item ends before them.
fn body(tokens: &[String], at: usize) -> Option<Range<usize>> {
    let mut depth = 0_i32;
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match &**token {
            "(" | "[" => depth += 1,
            ")" | "]" if depth == 0 => return None,
            ")" | "]" => depth -= 1,
            ";" if depth == 0 => return None,
            "{" if depth == 0 => return Some(n..closing(tokens, n)),
            _ => {}
        }
    }
    None
}

/// The place behind the brace that closes the one at `open`.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (n, token) in tokens.iter().enumerate().skip(open) {
        match &**token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return n + 1;
        }
    }
    tokens.len()
}

fn functions(tokens: &[String]) -> Vec<Function> {
    let mut found = Vec::new();
    for at in 0..tokens.len().saturating_sub(1) {
        if tokens[at] != "fn" || !is_name(&tokens[at + 1]) {
            continue;
        }
        let Some(body) = body(tokens, at) else { continue };
        let ends = |token: &String| ["{", "}", ";"].contains(&&**token);
        let begin = tokens[..at].iter().rposition(ends).map_or(0, |end| end + 1);
        let attributes = tokens[begin..at].concat();
        let inside = &tokens[body];
        found.push(Function {
            name: tokens[at + 1].clone(),
            at,
            is_test: attributes.contains("#[test]") || attributes.contains("::test]"),
            is_ignored: attributes.contains("#[ignore"),
            asserts: inside.windows(2).any(|pair| is_assertion(&pair[0], &pair[1])),
            calls: calls(inside),
        });
    }
    // A function inside another is that one's helper, not what it asserts by itself.
    found.sort_by_key(|function| function.at);
    found
}

fn is_assertion(name: &str, mark: &str) -> bool {
    match mark {
        "!" => ["assert", "prop_assert", "panic"].iter().any(|start| name.starts_with(start)),
        "(" => ["unwrap_err", "expect_err"].contains(&name),
        _ => false,
    }
}

/// Names of what is called. Constructors are no helpers of a test.
fn calls(tokens: &[String]) -> HashSet<String> {
    let called = tokens.windows(2).filter(|pair| is_name(&pair[0]) && pair[1] == "(");
    let names = called.map(|pair| pair[0].clone());
    names.filter(|name| !["new", "default", "from", "clone"].contains(&&**name)).collect()
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words and marks, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = raw_string(rest) {
            len
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' {
            character(rest)
        } else if is_name(rest) || c.is_numeric() {
            let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(rest[..len].to_owned());
            len
        } else {
            if !c.is_whitespace() {
                found.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[len..];
    }
    found
}

/// The length of a raw string at the front.
fn raw_string(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = inner.len() - inner.trim_start_matches('#').len();
    let content = inner[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| begin + at + end.len()))
}

/// The length of what is quoted at the front.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character at the front, or of the mark of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) | (_, Some('\'')) => quoted(text, '\''),
        _ => 1,
    }
}

#[test]
fn literals_and_comments_are_no_words() {
    let text = r##"let a = "fn b() { // \" }"; /* fn c */ let d: &'static u8 = b'{'; r#"fn "e"#; // fn f"##;
    let words: Vec<String> = tokens(text).into_iter().filter(|token| is_name(token)).collect();
    assert_eq!(words, ["let", "a", "let", "d", "static", "u8", "b"]);
}

#[test]
fn tests_in_macros_are_found_and_empty_ones_known() {
    let text = "proptest! { #![config(x)] #[test] fn a(x in 0..9) { prop_assert!(x < 9); } } \
                #[test] fn b() { c(); } fn c() { assert_eq!(1, 1); } #[test] #[ignore] fn d() {}";
    let source = Source::new(text);
    let seen: Vec<_> = (source.functions.iter())
        .map(|f| (&*f.name, f.is_test, f.is_ignored, f.asserts, f.calls.contains("c")))
        .collect();
    let expected = [
        ("a", true, false, true, false),
        ("b", true, false, false, true),
        ("c", false, false, true, false),
        ("d", true, true, false, false),
    ];
    assert_eq!(seen, expected);
}
