//! `ferricorn top`: the answer to `status` once a second, on 80 columns and 24 lines, without colours.

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::status;
use crate::control::{Problem, Status};
use crate::sys::clock;
use crate::time::Instant;

/// From one look at the server to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// The size of the screen that `--once` prints.
const COLUMNS: u16 = 80;
const LINES: u16 = 24;
/// Lines for requests in hand, with their heading.
const REQUEST_LINES: u16 = 6;

/// The content of the screen.
#[derive(Debug, Default)]
struct Screen {
    status: Status,
    /// Requests answered in a second, since the look before.
    rate: Option<f64>,
    seen_at: Option<Instant>,
    /// The reason why the server cannot be asked.
    problem: Option<String>,
}

/// Shows the server that `look` asks until `q` is pressed, or once.
///
/// # Errors
/// When the server cannot be asked the first time, or there is no terminal.
pub(super) fn run(
    is_once: bool,
    look: impl Fn() -> Result<Status, Problem>,
) -> Result<Option<String>, Problem> {
    let mut screen = Screen::default();
    screen.update(now(), Ok(look()?));
    if is_once {
        return Ok(Some(screen.text()));
    }
    let failed = |error: io::Error| Problem { exit_code: 1, reason: error.to_string() };
    if !io::stdout().is_terminal() {
        let reason = "top: stdout is no terminal; use --once".to_owned();
        return Err(Problem { exit_code: super::EXIT_USAGE, reason });
    }
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let shown = loop {
        if let Err(error) = terminal.draw(|frame| screen.draw(frame)) {
            break Err(failed(error));
        }
        match pressed() {
            Ok(Pressed::Quit) => break Ok(None),
            Ok(Pressed::Nothing) => screen.update(now(), look()),
            Err(error) => break Err(failed(error)),
        }
    };
    ratatui::restore();
    shown
}

/// The keys that were pressed in an interval.
enum Pressed {
    Nothing,
    Quit,
}

fn pressed() -> io::Result<Pressed> {
    let until = now().after(INTERVAL);
    while event::poll(until.since(now()))? {
        let Event::Key(key) = event::read()? else { return Ok(Pressed::Nothing) };
        let is_interrupt =
            key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if is_interrupt || [KeyCode::Char('q'), KeyCode::Esc].contains(&key.code) {
            return Ok(Pressed::Quit);
        }
    }
    Ok(Pressed::Nothing)
}

fn now() -> Instant {
    Instant::from_millis(clock::monotonic_millis())
}

impl Screen {
    fn update(&mut self, now: Instant, looked: Result<Status, Problem>) {
        match looked {
            Ok(status) => {
                let before = self.status.server.requests_total;
                let since = self.seen_at.map(|at| now.since(at).as_secs_f64());
                self.rate = since.filter(|seconds| *seconds > 0.0).map(|seconds| {
                    let answered = status.server.requests_total.saturating_sub(before);
                    f64::from(u32::try_from(answered).unwrap_or(u32::MAX)) / seconds
                });
                *self = Self { status, rate: self.rate, seen_at: Some(now), problem: None };
            }
            Err(problem) => self.problem = Some(problem.reason),
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let head = self.head();
        let height = u16::try_from(head.len()).unwrap_or(LINES);
        let [top, table, requests, foot] = Layout::vertical([
            Constraint::Length(height),
            Constraint::Fill(1),
            Constraint::Length(REQUEST_LINES),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(head), top);
        frame.render_widget(Paragraph::new(self.workers(table.height)), table);
        frame.render_widget(Paragraph::new(self.requests()), requests);
        let foot_text = match &self.problem {
            Some(problem) => super::control::plain(problem),
            None => "q: quit".to_owned(),
        };
        frame.render_widget(Paragraph::new(foot_text), foot);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let head = status::head(&self.status.server);
        let mut lines: Vec<Line<'_>> =
            head.lines().map(|line| Line::from(line.to_owned())).collect();
        let in_hand: usize =
            self.status.workers.iter().map(|worker| worker.requests_in_flight).sum();
        let rate =
            self.rate.map(|rate| format!("{rate:.0} requests a second, ")).unwrap_or_default();
        lines.push(Line::from(format!("{rate}{in_hand} in hand")));
        lines
    }

    /// The workers, as many as fit; those in trouble are not left out before others.
    fn workers(&self, height: u16) -> Vec<Line<'static>> {
        let room = usize::from(height).saturating_sub(2);
        let mut workers: Vec<_> = self.status.workers.iter().collect();
        let hidden = workers.len().saturating_sub(room);
        if hidden > 0 {
            workers.sort_by_key(|worker| (worker.state == "serving", worker.slot));
            workers.truncate(room.saturating_sub(1));
        }
        let heading = Style::new().add_modifier(Modifier::REVERSED);
        let mut lines =
            vec![Line::styled(status::TABLE.trim_end().trim_start_matches('\n'), heading)];
        let rows = workers.into_iter().map(|worker| status::row(worker).trim_end().to_owned());
        lines.extend(rows.map(Line::from));
        if hidden > 0 {
            lines.push(Line::from(format!("     … and {} more", hidden + 1)));
        }
        lines
    }

    /// The requests that are in hand for longest.
    fn requests(&self) -> Vec<Line<'static>> {
        let mut requests: Vec<_> = self.status.requests.iter().collect();
        requests.sort_by(|one, other| other.age_seconds.total_cmp(&one.age_seconds));
        let heading = Style::new().add_modifier(Modifier::REVERSED);
        let mut lines = vec![Line::styled("SLOT      AGE   OLDEST REQUESTS IN HAND", heading)];
        let oldest = requests.into_iter().take(usize::from(REQUEST_LINES).saturating_sub(1));
        let rows = oldest.map(|request| status::request_line(request).trim_end().to_owned());
        lines.extend(rows.map(Line::from));
        lines
    }

    /// The screen as text.
    fn text(&self) -> String {
        let Ok(mut terminal) = Terminal::new(TestBackend::new(COLUMNS, LINES));
        let Ok(drawn) = terminal.draw(|frame| self.draw(frame));
        let buffer = drawn.buffer;
        let line = |y: u16| -> String {
            (0..COLUMNS).filter_map(|x| Some(buffer.cell((x, y))?.symbol())).collect()
        };
        let lines: Vec<String> = (0..LINES).map(|y| line(y).trim_end().to_owned()).collect();
        // There is nothing to quit.
        let lines = lines[..lines.len().saturating_sub(1)].join("\n");
        format!("{}\n", lines.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{RequestRow, ServerRow, WorkerRow};

    fn status(workers: u16) -> Status {
        let server = ServerRow {
            pid: 7,
            program: "ferricorn".to_owned(),
            version: "0.1.0".to_owned(),
            state: "serving".to_owned(),
            generation: 2,
            uptime_seconds: 7300.0,
            workers_wanted: workers,
            workers_serving: usize::from(workers),
            requests_total: 12_345,
            addresses: vec!["http://0.0.0.0:5000".to_owned()],
            ..ServerRow::default()
        };
        let worker = |slot| WorkerRow {
            slot,
            pid: Some(100 + i32::from(slot)),
            state: if slot == 30 { "booting" } else { "serving" }.to_owned(),
            generation: 2,
            age_seconds: 90.0,
            slot_requests_total: 3000,
            connections: 12,
            requests_in_flight: 1,
            memory_bytes: Some(20 << 20),
            cpu_seconds: Some(1.25),
            ..WorkerRow::default()
        };
        let request = RequestRow {
            slot: 1,
            remote: Some("192.0.2.1".to_owned()),
            method: "GET".to_owned(),
            target: "/a\u{1b}[31m".to_owned(),
            age_seconds: 4.25,
            running: true,
            ..RequestRow::default()
        };
        let workers = (0..workers).map(worker).collect();
        Status { server, workers, requests: vec![request] }
    }

    #[test]
    fn screen_fits_and_shows_rates_and_requests() {
        let mut screen = Screen::default();
        screen.update(Instant::from_millis(1000), Ok(status(2)));
        let mut next = status(2);
        next.server.requests_total += 500;
        screen.update(Instant::from_millis(3000), Ok(next));
        insta::assert_snapshot!(screen.text());
    }

    #[test]
    fn workers_in_trouble_are_shown_first_where_not_all_fit() {
        let mut screen = Screen::default();
        screen.update(Instant::from_millis(1000), Ok(status(40)));
        let text = screen.text();
        assert!(text.lines().count() <= usize::from(LINES), "{text}");
        assert!(text.contains("  30     130 booting"), "{text}");
        assert!(text.contains("more"), "{text}");
        let reason = "server 7 does not answer".to_owned();
        screen.update(Instant::from_millis(2000), Err(Problem { exit_code: 69, reason }));
        assert_eq!(screen.problem.as_deref(), Some("server 7 does not answer"));
        assert!(screen.text().contains("  30     130 booting"), "the last answer stays");
    }
}
