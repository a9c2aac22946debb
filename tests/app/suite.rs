//! What holds on every database.

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
    http::a_body_means_nothing_and_is_read_to_its_end,
    http::a_known_path_has_its_methods_alone,
    http::an_unknown_path_is_404,
    http::every_answer_carries_the_security_headers,
    http::head_is_get_without_a_body,
    http::the_page_and_its_files_are_tagged,
    http::who_asks_for_no_html_gets_text,
    http::who_came_over_tls_is_told_to_stay_there,
    rows::a_row_has_its_time,
    rows::a_second_start_keeps_the_rows,
    rows::a_wrong_query_is_refused,
    rows::delete_says_how_many,
    rows::pages_show_every_row_once_newest_first,
    rows::populate_answers_as_documented,
    rows::readiness_and_liveness,
    rows::several_starts_at_once_make_one_table,
    writes::a_client_that_goes_away_stops_nothing,
    writes::deletes_and_populates_of_all_workers_add_up,
    writes::five_hundred_at_once_are_five_hundred_rows,
    writes::rows_of_a_batch_keep_their_order,
}
