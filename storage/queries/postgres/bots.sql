-- Statements about chat bots and what they were asked, as PostgreSQL wants them.

-- name: count_waiting_commands
-- Of those bots.
select bot_id, count(*) as number from commands
where next_try_at is not null and bot_id in (select value from json_each(:bots))
group by bot_id;
