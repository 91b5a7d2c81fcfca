The queue manager in full. Both of Postfix's schedulers, chosen by the command column of the ``qmgr`` line in master.cf: ``qmgr``, where a message with few recipients slips past one with many, with its slot parameters, blocker jobs and recipient pools; and ``oqmgr``. Rate delays for destinations and transports (below a second, too), ``defer_transports``, ``in_flow_delay``, warnings about destinations that clog the queue, ``destination_concurrency_feedback_debug``, limits of time for deliveries and for what the queue manager waits for, and a watchdog. ``deferred_retry_jitter`` spreads retries.

Hold, release, requeue and delete mail with ``qmqpd-tx postsuper``, active mail included, on a running service or a stopped one; ``qmqpd-tx postkick``; ``qmqpd-tx postqueue -s SITE`` with the fast flush service. ``qmqpd-tx postqueue --explain ID`` says for each recipient what a message waits for and until when.

``qmqpd-tx simulate SCENARIO.toml`` runs the queue manager on a simulated clock against scripted destinations and arrivals, and says when each class of mail is delivered, with CSV, plots (extra ``plot``), and three worked scenarios.

Delay warnings: ``delay_warning_time``, ``delay_notice_recipient`` and ``confirm_delay_cleared``.

The service takes mail a few milliseconds after it starts, whatever is queued: recovery and the index of deferred mail are made beside it. A queue file that is deleted, cut or replaced while its message is active is noticed, and nothing of another message is delivered.

A transport or router that returns nonsense defers mail with a clear error, and never blocks a destination. VERP notices that were queued are not sent again when a later one of the same message fails.
