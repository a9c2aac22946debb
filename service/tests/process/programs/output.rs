//! The output of programs in the log.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{plain, program, running};
use crate::harness::{Signal, eventually};
use crate::log_figures::{figure, is_in_full_length};

const SHOUT: &str = "import os, socket, sys, threading\n\
    def write(stream, name):\n\
    \x20   for number in range(2000):\n\
    \x20       stream.write(f'{name} {number}\\n')\n\
    \x20   stream.flush()\n\
    writers = [threading.Thread(target=write, args=it) for it in ((sys.stdout, 'out'), (sys.stderr, 'err'))]\n\
    [it.start() for it in writers]; [it.join() for it in writers]\n\
    os.write(1, b'{\"level\": \"warn\", \"own\": true}\\n'); os.write(1, b'no end')\n\
    socket.socket(fileno=3).accept()";

/// Two programs write to both of their outputs at once: each line is whole, and each one's are in order.
#[test]
fn lines_of_programs_are_whole_and_in_order() {
    let server =
        running("workers = 2\n[program]\nready = \"listen\"", &["python3", "-c", SHOUT]).start();
    server.signal(Signal::SIGQUIT);
    let log = finished(server);
    for slot in 0..2 {
        for name in ["out", "err"] {
            let begin = format!("[slot {slot}] {name} ");
            let numbers =
                log.lines().filter_map(|line| line.split_once(&begin)?.1.parse::<u32>().ok());
            assert!(numbers.eq(0..2000), "slot {slot}, {name}:\n{log}");
        }
        assert!(log.contains(&format!("[slot {slot}] no end\n")), "the last line is lost");
    }
}

#[test]
fn json_of_a_program_is_passed_on() {
    let config =
        "workers = 1\n[log]\nformat = \"json\"\nlevel = \"error\"\n[program]\nready = \"listen\"";
    let server = running(config, &["python3", "-c", SHOUT]).start();
    let pid = program(&server, 0);
    server.signal(Signal::SIGQUIT);
    let log = finished(server);
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let own = serde_json::json!({ "level": "warn", "own": true });
    assert_eq!(lines.iter().filter(|line| **line == own).count(), 1);
    let first = lines.iter().find(|line| line["message"] == "out 0").expect("it is logged");
    assert_eq!((&first["pid"], &first["slot"]), (&pid.into(), &0.into()));
    assert_eq!((&first["event"], &first["stream"]), (&"program_output".into(), &"stdout".into()));
}

/// Stops a server that was told to stop, and returns its log.
fn finished(mut server: crate::harness::Ferricorn) -> String {
    server.wait_exit();
    server.log()
}

/// The server's standard output is not read: the program writes megabytes all the same, no write takes
/// long, and the lines that are lost are counted.
#[test]
fn program_does_not_wait_for_a_reader_of_the_log() {
    let megabytes = figure("FIGURE_MEGABYTES", 20);
    let writes = usize::try_from(megabytes * 1_000_000 / 6400).expect("few");
    let (mut reader, writer) = std::io::pipe().expect("two descriptors");
    let script = "import os, socket, sys, time\n\
        line = b'x' * 99 + b'\\n'\n\
        worst = 0\n\
        for _ in range(int(sys.argv[1])):\n\
        \x20   begun = time.monotonic(); os.write(1, line * 64); worst = max(worst, time.monotonic() - begun)\n\
        open('worst', 'w').write(str(worst)); os.rename('worst', 'done')\n\
        socket.socket(fileno=3).accept()";
    let config = "workers = 1\n[program]\nready = \"delay:0\"";
    let server =
        running(config, &["python3", "-c", script, &writes.to_string()]).stdout(writer).launch();
    let folder = server.folder().to_owned();
    let begun = Instant::now();
    let worst = eventually("all is written", Duration::from_secs(120), || {
        std::fs::read_to_string(folder.join("done")).ok()
    });
    // A write that waited for the reader would never end.
    let worst = Duration::from_secs_f64(worst.parse().expect("a number"));
    println!("{megabytes} MB in {:?}, the longest write took {worst:?}", begun.elapsed());
    let is_figure = is_in_full_length("FIGURE_MEGABYTES");
    let longest = Duration::from_millis(if is_figure { 20 } else { 2000 });
    assert!(worst < longest, "a write took {worst:?} of {:?}", begun.elapsed());
    // What is in the pipe and in the rings is read, and the gap is told.
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).expect("our own pipe");
        text
    });
    server.stop();
    let text = text.join().expect("it reads");
    let lines = text.lines().filter(|line| line.contains("[slot 0] xxx")).count();
    let told =
        text.lines().filter_map(|line| line.split_once("log lines dropped: ")?.1.split(' ').next());
    let lost: usize = told.map(|told| told.parse::<usize>().expect("a number")).sum();
    println!("{lines} lines, {lost} lost and counted");
    assert_eq!(lines + lost, writes * 64, "{lines} lines, {lost} lost");
}

#[test]
fn output_of_a_program_that_fails_says_why() {
    let text = plain("workers = 1", &[]).file("plain.py", "import nowhere").fails_with(3);
    assert!(text.contains("ModuleNotFoundError: No module named 'nowhere'"), "{text}");
}
