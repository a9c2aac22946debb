//! The language itself: what compiles, and what is said of what does not. What the steps write is
//! tested beside [`super::super::access`].

use proptest::prelude::*;

use super::*;

fn steps(text: &str) -> Vec<Step> {
    let environment = |name: &str| match name {
        "REGION" => Some("eu \"1\"".to_owned()),
        "LONG" => Some("x".repeat(LITERALS_MAX)),
        _ => None,
    };
    match AccessFormat::compile_with(text, environment) {
        Ok(AccessFormat(Shape::Text { steps, .. })) => steps,
        other => panic!("{text:?} is {other:?}"),
    }
}

fn literal(text: &str) -> Step {
    Step::Literal(text.as_bytes().to_vec())
}

#[test]
fn neighbouring_text_becomes_one_step() {
    assert_eq!(
        steps("%(h)s %(l)s %(u)s 100%% \t%(s)s."),
        [Step::Remote, literal(" - "), Step::User, literal(" 100% \t"), Step::Status, literal(".")]
    );
}

#[test]
fn fields_and_variables_are_looked_up_once() {
    assert_eq!(
        steps("%({X-Thing}i)s%({X-Thing}o)s"),
        [
            Step::RequestHeader(HeaderName::from_static("x-thing")),
            Step::ResponseHeader(HeaderName::from_static("x-thing")),
        ]
    );
    assert_eq!(
        steps("%({slot}e)s %({REGION}e)s %({NOWHERE}e)s %({a=b}e)s %({}e)s"),
        [Step::Slot, literal(r#" eu \"1\" - - -"#)]
    );
}

#[test]
fn names_of_wsgi_are_parts_of_the_request() {
    assert_eq!(
        steps("%({wsgi.url_scheme}e)s%({REMOTE_ADDR}e)s%({REQUEST_METHOD}e)s%({RAW_URI}e)s"),
        [Step::Scheme, Step::Remote, Step::Method, Step::Target]
    );
    assert_eq!(
        steps("%({PATH_INFO}e)s%({QUERY_STRING}e)s%({SERVER_PROTOCOL}e)s%({HTTP_USER_AGENT}e)s"),
        [
            Step::Path,
            Step::Query,
            Step::Protocol,
            Step::RequestHeader(HeaderName::from_static("user-agent"))
        ]
    );
    let version = format!("ferricorn/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        steps("%({CONTENT_TYPE}e)s%({SCRIPT_NAME}e)s[%({SERVER_SOFTWARE}e)s"),
        [
            Step::RequestHeader(HeaderName::from_static("content-type")),
            literal(&format!("[{version}"))
        ]
    );
    assert_eq!(
        gaps("%({wsgi.errors}e)s %({SERVER_PORT}e)s %({slot}e)s %({PATH}e)s"),
        ["wsgi.errors", "SERVER_PORT"]
    );
    assert_eq!(gaps("json"), [""; 0]);
}

#[test]
fn the_fields_that_lines_are_made_of_are_known() {
    let fields = |text: &str| AccessFormat::compile(text).expect("it is valid").fields();
    let names =
        |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect();
    assert_eq!(
        fields("%(a)s %(u)s %({User-Agent}i)s %({server}o)s %(r)s"),
        NamedFields {
            request: names(&["user-agent", "authorization"]),
            response: names(&["server"]),
            queue_wait: false,
        }
    );
    assert!(fields("json").queue_wait && fields("%({queue_wait}e)s").queue_wait);
    let json = fields("%(u)s%(f)s%(a)s%({traceparent}i)s").request;
    assert_eq!(fields("json").request, json);
    assert_eq!(fields("%(s)s"), NamedFields::default());
}

#[test]
fn json_is_a_word_and_not_a_format() {
    assert_eq!(AccessFormat::compile("json"), Ok(AccessFormat(Shape::Json)));
    assert_eq!(steps("json "), [literal("json ")]);
}

#[test]
fn formats_are_checked_for_the_configuration() {
    assert_eq!(fault("%(h)s"), None);
    assert_eq!(fault("json"), None);
    let error = fault("%(h").expect("it is wrong");
    assert_eq!(error, "found \"%(\" at character 1 without its \")s\"; expected %(atom)s");
}

#[test]
fn errors_name_the_place_what_was_found_and_what_is_known() {
    let known = "known are h l u t r m U q H s B b f a T M D L p, \
                 {header}i, {header}o and {variable}e";
    let table = [
        (
            "ü %(x)s",
            format!("unknown atom %(x)s at character 3; {known}"),
        ),
        ("%({a}x)s", format!("unknown atom %({{a}}x)s at character 1; {known}")),
        ("%()s", format!("unknown atom %()s at character 1; {known}")),
        (
            "%(h",
            "found \"%(\" at character 1 without its \")s\"; expected %(atom)s".to_owned(),
        ),
        (
            "%(h)s %(D)d",
            "found \"d\" after %(D) at character 7; expected %(D)s".to_owned(),
        ),
        (
            "%(h)",
            "found \"\" after %(h) at character 1; expected %(h)s".to_owned(),
        ),
        (
            "%h %l",
            "found \"%h\" at character 1; expected %(atom)s, or %% for a percent sign".to_owned(),
        ),
        (
            "done 100%",
            "found \"%\" at character 9; expected %(atom)s, or %% for a percent sign".to_owned(),
        ),
        (
            "%(h)s\n%(s)s",
            "found '\\n' at character 6; expected a line without control characters other than tabs"
                .to_owned(),
        ),
        (
            "%(\n)",
            "found \"\" after %(\\n) at character 1; expected %(\\n)s".to_owned(),
        ),
        (
            "%({bad name}i)s",
            "\"bad name\" at character 1 is not the name of a header field".to_owned(),
        ),
        (
            "",
            "expected a format or \"json\", found \"\"; log.access = \"none\" turns the log off".to_owned(),
        ),
    ];
    for (text, expected) in table {
        let error = AccessFormat::compile(text).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text:?}");
    }
}

#[test]
fn lengths_are_bounded() {
    let longest = "x".repeat(FORMAT_MAX);
    assert!(AccessFormat::compile(&longest).is_ok());
    let error = AccessFormat::compile(&format!("{longest}x")).expect_err("too long");
    assert_eq!(error.to_string(), "the format has 4097 bytes; expected at most 4096");
    let long = AccessFormat::compile_with("x%({LONG}e)s", |_| Some("x".repeat(LITERALS_MAX)));
    assert_eq!(
        long.expect_err("too long").to_string(),
        "the format and the environment variables that it names have more than 16384 bytes of text \
         at character 2"
    );
}

#[test]
fn every_format_leaves_room_for_values() {
    // The most values that a format can have, and the most atoms of a fixed length.
    for atom in ["%(r)s", "%(U)s", "%(h)s"] {
        let text = atom.repeat(FORMAT_MAX / atom.len());
        let AccessFormat(Shape::Text { steps, value_max }) =
            AccessFormat::compile(&text).expect("it is valid")
        else {
            panic!("{atom} is text");
        };
        let values: usize = steps.iter().map(Step::values).sum();
        let longest = values * (value_max * escape::TEXT_GROWTH + escape::CUT.len());
        assert!(longest + ATOM_MAX * steps.len() < LINE_MAX, "{atom}: {longest}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(text in "\\PC*|[%(){}a-zA-Z ie\\n\\x00=]{0,40}") {
        if let Err(error) = AccessFormat::compile(&text) {
            prop_assert!(error.position >= 1);
            prop_assert!(error.position <= text.chars().count() + 1);
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

#[test]
fn fields_with_credentials_are_in_no_line() {
    let text = "%({Authorization}i)s %({cookie}i)s %({Set-Cookie}o)s %({proxy-authorization}i)s";
    let format = AccessFormat::compile(text).unwrap();
    assert_eq!(format!("{:?}", format.fields()).matches("okie").count(), 0);
    assert_eq!(format!("{:?}", format.fields()).matches("uthorization").count(), 0);
}
