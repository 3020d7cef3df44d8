-- refuse_change: the trigger that keeps the audit log append-only, whoever asks.
CREATE FUNCTION refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION USING
        MESSAGE = 'the audit log is append-only: ' || TG_OP || ' is refused',
        ERRCODE = 'insufficient_privilege';
END
$function$
