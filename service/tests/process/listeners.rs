//! Listeners with names, each of which has routes of its own.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::client::{Address, Connection};
use crate::control;
use crate::disk;
use crate::harness::{Ferricorn, PATIENCE, Signal, eventually, parse_address};
use crate::http2;

fn ask(address: &Address) -> String {
    Connection::open(address).expect("it listens").get("/").expect("it is answered").text()
}

fn shown(address: &Address) -> String {
    address.tcp().to_string()
}

/// Waits until this is answered there.
fn wait_for(address: &Address, text: &str) {
    eventually("the routes of its name answer", PATIENCE, || {
        let answer = Connection::open(address).ok()?.get("/").ok()?.text();
        answer.starts_with(text).then_some(())
    });
}

#[test]
fn each_name_has_its_routes_over_reload_and_upgrade() {
    let builder = Ferricorn::example("listeners")
        .config("workers = 2\nbind = ['127.0.0.1:0', 'office=127.0.0.1:0', 'office=unix:o.sock']");
    let real = builder.binary().to_owned();
    let server = disk::started_by_link(builder).start();
    let [shop, office, unix] = server.addresses() else { panic!("{:?}", server.addresses()) };
    server.wait_event("listening", &[("address", format!("office={office}").into())]);
    let shop = parse_address(shop);
    let office = parse_address(office);
    let unix = parse_address(unix);
    let check = || {
        for _ in 0..8 {
            assert_eq!(ask(&shop), format!("shop of no name at {}\n", shown(&shop)));
            assert_eq!(ask(&office), format!("office of office at {}\n", shown(&office)));
            assert_eq!(ask(&unix), "office of office at a unix socket\n");
        }
        assert_eq!(http2::text(&office), format!("office of office at {}\n", shown(&office)));
    };
    check();
    let bind = |names: [&str; 3]| {
        let [shop, office, unix] = names;
        let text = format!(
            "workers = 2\nbind = ['{shop}127.0.0.1:0', '{office}127.0.0.1:0', '{unix}unix:o.sock']"
        );
        std::fs::write(server.folder().join("config.toml"), text).expect("the folder is ours");
    };
    disk::put_link(server.folder(), &real);
    server.signal(Signal::SIGUSR2);
    server.wait_reloaded(2);
    check();
    // The socket stays, and gets other routes.
    bind(["", "office=", "stock="]);
    server.signal(Signal::SIGHUP);
    wait_for(&unix, "stock of stock at a unix socket");
    assert_eq!(ask(&office), format!("office of office at {}\n", shown(&office)));
    server.wait_reloaded(3);
    // A name without routes changes nothing.
    bind(["", "ofice=", "stock="]);
    server.signal(Signal::SIGHUP);
    let expected = "bind: expected a name that this application has routes for (office, stock), found \
                    \"ofice=127.0.0.1:0\"";
    let reason = server.wait_reload_failed(4);
    assert!(reason.contains(expected), "{reason}");
    assert_eq!(ask(&office), format!("office of office at {}\n", shown(&office)));
    server.stop();
}

#[test]
fn name_is_in_status_and_access_lines() {
    let server = Ferricorn::example("listeners")
        .config(
            "workers = 1\nbind = ['127.0.0.1:0', 'office=127.0.0.1:0']\n[log]\naccess_format = 'by \
             %({listener}e)s.'",
        )
        .start();
    let [shop, office] = server.addresses() else { panic!("{:?}", server.addresses()) };
    let found = control::status(&server);
    assert_eq!(found["server"]["named"], serde_json::json!({ "office": [office] }));
    let text = control::succeed(&server, &["status"]);
    assert!(text.contains(&format!("listening at {shop}, office={office}\n")), "{text}");
    ask(&parse_address(shop));
    server.wait_log("by -.");
    ask(&parse_address(office));
    server.wait_log("by office.");
    server.stop();
}

#[test]
fn name_without_routes_ends_the_start() {
    let text = Ferricorn::example("listeners").config("bind = 'ofice=127.0.0.1:0'").fails_with(78);
    assert!(text.contains("config.toml:1: bind: expected a name that this application"), "{text}");
    let text = Ferricorn::unruly().flag("--bind=admin=127.0.0.1:0").fails_with(78);
    let why =
        "expected an address without a name, since this application has no names for listeners";
    assert!(text.contains(why) && text.contains("found \"admin=127.0.0.1:0\""), "{text}");
}

#[test]
fn inherited_socket_has_the_name_of_its_descriptor() {
    let _share = crate::machine::share();
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&0; exec \"$@\"";
    // By a service manager, and by the configuration alone.
    for script in [script, "exec 3<&0; exec \"$@\""] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = Address::Tcp(listener.local_addr().expect("it has one"));
        let (ready, _unused) = std::io::pipe().expect("two descriptors");
        let server = Ferricorn::example("listeners")
            .config("workers = 1\nbind = 'office=fd://3'")
            .wrapped(&["sh", "-c", script, "sh"])
            .launch_with(Stdio::from(OwnedFd::from(listener)), ready, &[]);
        wait_for(&address, "office of office at 127.0.0.1:");
        server.stop();
    }
}
