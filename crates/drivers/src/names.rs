//! Enums whose values are words of the command line and of the API.

/// Declares an enum with the name of each value beside it.
macro_rules! named {
    ($(#[$about:meta])* $driver:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $driver {
            $($(#[$doc])* $value,)+
        }

        impl $driver {
            /// All of them, in the order of the help text.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// The name on the command line and in the API.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }

            /// The driver of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|driver| driver.name() == name)
            }
        }

        impl std::fmt::Display for $driver {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(crate) use named;
