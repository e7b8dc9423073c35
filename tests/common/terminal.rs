//! A pseudo-terminal for the process, and what it shows.

use std::fs::File;
use std::io::Read as _;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A pseudo-terminal: our end, and the one for the process.
pub fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    // Wide enough that no record wraps: the screen below has no edge.
    let size = rustix::termios::Winsize {
        ws_row: 50,
        ws_col: 300,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&ours, size).unwrap();
    (File::from(ours), theirs)
}

/// All that comes out of our end until the process is gone.
pub fn transcript(mut ours: File) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut part = [0; 4096];
        // Linux reports the other end's closing as an error.
        while let Ok(count @ 1..) = ours.read(&mut part) {
            all.extend_from_slice(&part[..count]);
        }
        all
    })
}

/// What a terminal without edges shows after `bytes`: the escapes that bars are drawn with, and no others.
pub fn screen(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0usize, 0usize);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\u{1b}' => {
                assert_eq!(characters.next(), Some('['), "{text:?}");
                let mut parameters = String::new();
                let end = loop {
                    match characters.next().unwrap() {
                        c if c.is_ascii_alphabetic() => break c,
                        c => parameters.push(c),
                    }
                };
                let count = parameters.parse::<usize>().unwrap_or(1);
                match (end, parameters.as_str()) {
                    ('A', _) => row = row.saturating_sub(count),
                    ('B', _) => row = (row + count).min(lines.len() - 1),
                    ('C', _) => column += count,
                    ('D', _) => column = column.saturating_sub(count),
                    ('K', "2") => lines[row].clear(),
                    ('K', _) => lines[row].truncate(column),
                    ('J', _) => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    // Colours, and the cursor's looks.
                    ('m' | 'h' | 'l', _) => {}
                    other => panic!("{other:?} in {text:?}"),
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
    }
    let line = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned();
    lines.iter().map(line).filter(|line| !line.is_empty()).collect()
}
