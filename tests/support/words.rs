//! The rules of wording that a machine can check: the subject of a sentence has a name.

use super::{all, files_of, hold, sources};

/// Words that stand for a process, a client or a descriptor without a name for it.
const PRONOUNS: [&str; 11] = [
    "nobody",
    "somebody",
    "everybody",
    "anybody",
    "whoever",
    "whom",
    "he",
    "she",
    "his",
    "her",
    "him",
];

/// The text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//")
}

/// The text of a line of a doc comment.
fn doc(line: &str) -> Option<&str> {
    comment(line)?.strip_prefix(['/', '!']).map(str::trim)
}

#[test]
fn comments_name_their_subjects() {
    let broken = sources().into_iter().flat_map(|file| {
        let lines = file.text.lines().enumerate().filter(|(_, line)| {
            let words =
                comment(line).unwrap_or_default().split(|letter: char| !letter.is_alphabetic());
            words.map(str::to_lowercase).any(|word| PRONOUNS.contains(&&*word))
        });
        lines.map(|(at, _)| format!("{}:{}", file.name, at + 1)).collect::<Vec<_>>()
    });
    hold("a component, a client, a process is called by its name", broken.collect());
}

#[test]
fn docs_begin_with_the_thing() {
    let broken = all().into_iter().flat_map(|file| {
        let mut before = None;
        let mut found = Vec::new();
        for (at, line) in file.text.lines().enumerate() {
            let first = doc(line).filter(|_| before.is_none());
            let word = first.and_then(|text| text.split(' ').next());
            if word.is_some_and(|word| ["What", "Whether", "Who", "How"].contains(&word)) {
                found.push(format!("{}:{}", file.name, at + 1));
            }
            before = doc(line);
        }
        found
    });
    hold("a doc begins with a noun, or with what the function does", broken.collect());
}

/// The scripts and styles of the pages have the rules of the code.
#[test]
fn pages_are_worded_as_the_code() {
    let folders = ["src", "service/src"];
    let pages = folders.into_iter().flat_map(|folder| ["js", "css"].map(|kind| (folder, kind)));
    let pages = pages.flat_map(|(folder, kind)| files_of(folder, kind));
    let broken = pages.flat_map(|file| {
        let lines = file.text.lines().enumerate().filter(|(_, line)| {
            let line = line.trim_start();
            let text = line.strip_prefix("//").or_else(|| line.strip_prefix("/*"));
            let mut words = text.unwrap_or_default().split(|letter: char| !letter.is_alphabetic());
            let first = words.clone().find(|word| !word.is_empty());
            first.is_some_and(|word| ["What", "Whether", "Who", "How"].contains(&word))
                || words.any(|word| PRONOUNS.contains(&&*word.to_lowercase()))
        });
        lines.map(|(at, _)| format!("{}:{}", file.name, at + 1)).collect::<Vec<_>>()
    });
    hold("a comment of a page names its subject", broken.collect());
}

#[test]
fn closures_name_their_parameters() {
    // Not written as it is looked for.
    let [open, name] = ["|", "it"];
    let forms = ["", "&", "&&", "mut ", "&mut "].map(|mark| format!("{open}{mark}{name}"));
    let broken = sources().into_iter().flat_map(|file| {
        let lines = file.text.lines().enumerate().filter(|(_, line)| {
            let is_end = |rest: &str| rest.starts_with(['|', ':', ',']);
            forms.iter().any(|form| line.split(&**form).skip(1).any(is_end))
        });
        lines.map(|(at, _)| format!("{}:{}", file.name, at + 1)).collect::<Vec<_>>()
    });
    hold("the parameter of a closure has a name", broken.collect());
}

/// A small struct, several parameters or several statements say what belongs together.
#[test]
fn tuples_hide_no_parameters_and_no_statements() {
    let broken = sources().into_iter().flat_map(|file| {
        let is_tuple = |line: &str, next: &str| {
            let line = line.trim_start();
            let parameter = line.split_once("): (").or_else(|| line.split_once("): &("));
            let is_parameter = parameter.is_some_and(|(name, _)| {
                let begins =
                    name.starts_with('(') || name.starts_with("&(") || name.contains("fn ");
                begins && !name.contains(['|', '='])
            });
            let (_, value) = line.split_once(" =").unwrap_or_default();
            let is_value = value.trim_start().starts_with('(')
                || value.is_empty() && next.trim_start().starts_with('(');
            let is_else = line.contains(") else {") || next.trim_end().ends_with(") else {");
            let is_statement = line.starts_with("let (") && line.contains(" =") && is_value;
            is_parameter || is_statement && !is_else
        };
        let next = file.text.lines().skip(1).chain([""]);
        let lines = file.text.lines().zip(next).enumerate();
        let lines = lines.filter(|(_, (line, next))| is_tuple(line, next));
        lines.map(|(at, _)| format!("{}:{}", file.name, at + 1)).collect::<Vec<_>>()
    });
    hold("a tuple is no parameter, and assigns nothing", broken.collect());
}

/// Words that the glossary has another one for, as parts of names in the code.
const REPLACED: [(&str, &str); 16] = [
    ("dismiss", "drain or stop"),
    ("dismissed", "drain or stop"),
    ("dismissal", "drain or stop"),
    ("leaving", "draining"),
    ("retire", "drain"),
    ("pulse", "heartbeat"),
    ("pulses", "heartbeat"),
    ("beat", "heartbeat"),
    ("beats", "heartbeat"),
    ("heir", "replacement"),
    ("successor", "replacement"),
    ("newcomer", "replacement"),
    ("news", "event"),
    ("kid", "child"),
    ("seat", "slot"),
    ("patience", "timeout"),
];

/// The parts of a line's names: `NoteQueue`, `note_queue` and `NOTE_QUEUE` have two.
fn parts(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default().split('"').step_by(2);
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for letter in code.flat_map(|piece| piece.chars().chain([' '])) {
        let begins = letter.is_ascii_uppercase() && !before.is_ascii_uppercase();
        if begins || !letter.is_ascii_alphabetic() {
            parts.push(String::new());
        }
        if letter.is_ascii_alphabetic() {
            parts.last_mut().expect("there is one").push(letter.to_ascii_lowercase());
        }
        before = letter;
    }
    parts
}

#[test]
fn names_in_code_are_the_glossarys() {
    let broken = sources().into_iter().flat_map(|file| {
        // A line of a story is what the supervisor says.
        let code = file.text.lines().enumerate().filter(|(_, line)| !line.contains('→'));
        let lines = code.filter_map(|(at, line)| {
            let parts = parts(line);
            let (word, right) =
                REPLACED.iter().find(|(word, _)| parts.iter().any(|part| part == word))?;
            Some(format!("{}:{}: {word}: {right}", file.name, at + 1))
        });
        lines.collect::<Vec<_>>()
    });
    hold("one term stands for one concept", broken.collect());
}
