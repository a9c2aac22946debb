//! The program: the bundled application on ferricorn.

mod app;

use std::process::ExitCode;

fn main() -> ExitCode {
    match app::Records::new() {
        Ok(records) => ferricorn::main(records),
        Err(error) => {
            // There is no log yet.
            let _: std::io::Result<()> = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("ferricorn: cannot share memory: {error}\n").as_bytes(),
            );
            ExitCode::from(70)
        }
    }
}
