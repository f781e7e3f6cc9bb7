-- Four partitions of user_sessions, by a hash of the user.
-- on: user_sessions

create table if not exists user_sessions_0 partition of user_sessions for values with (modulus 4, remainder 0);
create table if not exists user_sessions_1 partition of user_sessions for values with (modulus 4, remainder 1);
create table if not exists user_sessions_2 partition of user_sessions for values with (modulus 4, remainder 2);
create table if not exists user_sessions_3 partition of user_sessions for values with (modulus 4, remainder 3);
