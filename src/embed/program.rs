//! The name and version by which a program calls itself.

use super::App;

/// A program on ferricorn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

impl Program {
    /// The program that an application is when it gives no name.
    pub(crate) const FERRICORN: Self =
        Self { name: "ferricorn", version: env!("CARGO_PKG_VERSION") };

    /// The program that an application is.
    pub(crate) const fn of<A: App>() -> Self {
        Self { name: A::NAME, version: A::VERSION }
    }

    /// Its version, with ferricorn's where that is another program's.
    pub(crate) fn versions(self) -> String {
        if self.name == Self::FERRICORN.name {
            return self.version.to_owned();
        }
        format!("{} (ferricorn {})", self.version, Self::FERRICORN.version)
    }

    /// The first line of its help.
    pub(crate) fn about(self) -> String {
        if self.name == Self::FERRICORN.name {
            return env!("CARGO_PKG_DESCRIPTION").to_owned();
        }
        format!("{}, served by ferricorn", self.name)
    }

    /// Puts its name into the commands that a text quotes: `` `ferricorn check` ``.
    pub(crate) fn named(self, text: &str) -> String {
        text.replace("`ferricorn ", &format!("`{} ", self.name))
    }
}
