//! Words of gunicorn and variables of platforms where they stand for settings, and what is warned of.

use super::*;

fn problems(config: Result<Config, Error>) -> Vec<String> {
    match config {
        Err(Error::Config(error)) => error.problems().to_vec(),
        Err(other) => panic!("{other}"),
        Ok(config) => panic!("{config:?}"),
    }
}

#[test]
fn words_of_gunicorn_mean_ours() {
    for word in ["v1", "v2", "auto", "AUTO"] {
        let text = format!("proxy_protocol = '{word}'\nlog.level = 'warn'");
        let config = Config::from_toml(&text, &[]).unwrap();
        assert!(config.proxy_protocol);
        assert_eq!(config.log.level, Level::Warning);
    }
    assert_eq!(problems(Config::from_toml("proxy_protocol = 'v3'", &[])).len(), 1);
}

/// The variables that the workers would have, the server has read before.
#[test]
fn variables_of_settings_are_refused_in_env() {
    const URL: &[Setting] = &[Setting::text("shop.url", "", "Where.").env("SHOP_URL").secret()];
    let text = "env = ['SHOP_URL=a://u:p@h', 'WEB_CONCURRENCY=2', 'OTHER=1', 'FERRICORN_X=1']";
    let why = "it is read before the workers' variables; set it in env_file or in the server's own \
               environment";
    assert_eq!(
        problems(Config::from_toml(text, URL)),
        [
            format!("config.toml:1: env: SHOP_URL sets shop.url: {why}"),
            format!("config.toml:1: env: WEB_CONCURRENCY sets workers: {why}"),
            format!("config.toml:1: env: FERRICORN_X sets no setting: {why}"),
        ]
    );
    assert!(Config::from_toml("env = ['SHOP_URL=1']", &[]).is_ok(), "it is the application's own");
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let config = Config::from_toml(
        "max_requests_jitter = 5\nmax_memory = 1000\nproxy_allow_ips = '10.0.0.0/8'\n\
         unix_socket_mode = '0660'\n",
        &[],
    )
    .unwrap();
    assert_eq!(
        config.warnings(),
        [
            "config.toml:1: max_requests_jitter: it has no effect while max_requests is 0",
            "config.toml:2: max_memory: 1000 is less than a worker needs (about 16MiB)",
            "config.toml:3: proxy_allow_ips: it has no effect while proxy_protocol is off",
            "config.toml:4: unix_socket_mode: it has no effect while no unix socket is bound",
        ]
    );
    let text = r"log.access_format = '%({wsgi.errors}e)s %(h)s %({SERVER_PORT}e)s'";
    assert_eq!(
        Config::from_toml(text, &[]).unwrap().warnings(),
        [
            "config.toml:1: log.access_format: {wsgi.errors}e has no value here, and is always \"-\"",
            "config.toml:1: log.access_format: {SERVER_PORT}e has no value here, and is always \"-\"",
        ]
    );
}

#[test]
fn application_setting_warns_when_a_program_serves() {
    let text = "keepalive = 5\nthreads = 2\nbacklog = 9\nlog.slow = 3\nhttp2.max_streams = 7\n";
    assert!(Config::from_toml(text, &[]).unwrap().warnings().is_empty());
    let config = Config::from_toml(&format!("{text}program.command = ['node']\n"), &[]).unwrap();
    let why = "it has no effect on a program; the program has settings of its own";
    let expected = ["2: threads", "1: keepalive", "4: log.slow", "5: http2.max_streams"];
    assert_eq!(config.warnings(), expected.map(|key| format!("config.toml:{key}: {why}")));
}
