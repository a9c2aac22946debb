//! The tests that hold on every database.

mod access;
mod hostile;
mod http;
mod rows;
mod writes;

use crate::world::Kind;

/// One test a function, in one module a database.
macro_rules! suite {
    ($($part:ident::$name:ident,)*) => {
        suite!(@on sqlite Kind::Sqlite; $($part::$name,)*);
        suite!(@on postgres Kind::Postgres; $($part::$name,)*);
        suite!(@on mariadb Kind::Mariadb; $($part::$name,)*);
    };
    (@on $database:ident $kind:expr; $($part:ident::$name:ident,)*) => {
        mod $database {
            use super::*;

            $(
                #[test]
                fn $name() {
                    crate::world::run($kind, $part::$name);
                }
            )*
        }
    };
}

suite! {
    access::failed_logins_are_limited_over_workers,
    access::login_is_json_or_a_form,
    access::other_sites_are_403,
    access::reading_takes_a_token_where_told,
    access::token_of_a_removed_user_ends_at_reload,
    access::without_users_nothing_takes_a_token,
    access::writing_takes_a_token_where_users_are,
    hostile::hostile_fields_are_refused,
    hostile::hostile_tokens_are_401,
    hostile::unknown_name_takes_a_trial_as_well,
    http::a_body_means_nothing_and_is_read_to_its_end,
    http::a_known_path_has_its_methods_alone,
    http::an_unknown_path_is_404,
    http::body_is_not_read_when_nothing_is_there,
    http::every_answer_carries_the_security_headers,
    http::head_is_get_without_a_body,
    http::options_is_204_with_allow_on_known_paths,
    http::the_page_and_its_files_are_tagged,
    http::who_asks_for_no_html_gets_text,
    http::who_came_over_tls_is_told_to_stay_there,
    rows::a_row_has_its_time,
    rows::a_second_start_keeps_the_rows,
    rows::a_wrong_query_is_refused,
    rows::delete_says_how_many,
    rows::pages_show_every_row_once_newest_first,
    rows::populate_answers_as_documented,
    rows::readiness,
    rows::several_starts_at_once_make_one_table,
    writes::a_client_that_goes_away_stops_nothing,
    writes::deletes_and_populates_of_all_workers_add_up,
    writes::five_hundred_at_once_are_five_hundred_rows,
    writes::rows_of_a_batch_keep_their_order,
}
