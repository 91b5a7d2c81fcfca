The first form of the whole way: ``twistd qmqp`` takes messages over QMQP, makes them safe on disk before
it says ``K``, and delivers them with Postfix's queue-manager semantics by SMTP or to local mailboxes.
``qmqpd-tx`` looks into the queue, prints the configuration and sends messages.
