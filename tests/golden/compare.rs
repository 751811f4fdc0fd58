//! Compares the output of a case with the checked-in files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Context lines around a difference.
const CONTEXT: usize = 3;

/// Replaces the checked-in files by the output.
pub(crate) fn write(folder: &Path, made: &BTreeMap<String, String>) {
    for name in checked_in(folder).keys().filter(|name| !made.contains_key(*name)) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    for (name, text) in made {
        fs::write(folder.join(name), text).unwrap();
    }
}

/// Describes every missing, superfluous or different file.
pub(crate) fn differences(folder: &Path, made: &BTreeMap<String, String>) -> Vec<String> {
    let expected = checked_in(folder);
    let mut found = Vec::new();
    for (name, text) in made {
        let path = folder.join(name);
        match expected.get(name) {
            None => found.push(format!("{}: not checked in:\n{}", path.display(), difference("", text))),
            Some(expected) if expected != text => {
                found.push(format!("{}:\n{}", path.display(), difference(expected, text)))
            }
            Some(_) => {}
        }
    }
    for name in expected.keys().filter(|name| !made.contains_key(*name)) {
        found.push(format!(
            "{}: nothing of the kind comes of it\n",
            folder.join(name).display()
        ));
    }
    found
}

/// The checked-in output files of a case.
fn checked_in(folder: &Path) -> BTreeMap<String, String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = paths.filter(|path| path.is_file()).map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    files
        .filter(|(name, _)| name != "case.yaml" && name != "input.yaml")
        .collect()
}

/// The differing lines with context.
fn difference(expected: &str, made: &str) -> String {
    let lines = merged(&expected.lines().collect::<Vec<_>>(), &made.lines().collect::<Vec<_>>());
    let is_near = |at: usize| {
        let around = at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len());
        lines[around].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut skipped = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if is_near(at) {
            text += if skipped { "  …\n" } else { "" };
            text += &format!("{mark} {line}\n");
        }
        skipped = !is_near(at);
    }
    text
}

/// Merges two texts by their longest common subsequence: common lines once, others marked as removed or
/// added.
fn merged<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for (i, j) in (0..old.len())
        .rev()
        .flat_map(|i| (0..new.len()).rev().map(move |j| (i, j)))
    {
        common[i][j] = match old[i] == new[j] {
            true => common[i + 1][j + 1] + 1,
            false => common[i + 1][j].max(common[i][j + 1]),
        };
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

#[test]
fn differences_have_context() {
    let text = difference(
        "a\nb\nc\nd\nold\ne\nf\ng\nh\ni\nj\nk\nl\nm\n",
        "a\nb\nc\nd\nnew\nnewer\ne\nf\ng\nh\ni\nj\nk\nl\n",
    );
    assert_eq!(
        text,
        "  …\n  b\n  c\n  d\n- old\n+ new\n+ newer\n  e\n  f\n  g\n  …\n  j\n  k\n  l\n- m\n"
    );
}

#[test]
fn missing_and_superfluous_files_are_differences() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cds.yaml"), "old\n").unwrap();
    let made = BTreeMap::from([("rds.yaml".to_owned(), "new\n".to_owned())]);
    let found = differences(folder.path(), &made);
    assert!(
        found.len() == 2 && found[0].contains("not checked in") && found[1].contains("nothing of the kind"),
        "{found:?}"
    );
    write(folder.path(), &made);
    assert_eq!(differences(folder.path(), &made), [""; 0]);
}
