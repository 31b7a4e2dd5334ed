"""the registry: people, aliases, gates, deployments, lineage, metrics, usage"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from registry.names import fold

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def fold_names(connection: sa.Connection) -> None:
    """Fold the names of the models that are there, as new ones are."""
    for row in connection.execute(sa.text('SELECT id, name FROM models')).all():
        connection.execute(sa.text('UPDATE models SET folded = :folded WHERE id = :id'), {'id': row.id, 'folded': fold(row.name)})


def upgrade() -> None:
    op.create_table('audit_checkpoints',
    sa.Column('entry_id', sa.BigInteger(), nullable=False, comment='the entry that was last'),
    sa.Column('hash', sa.Text(), nullable=False, comment='its hash'),
    sa.Column('key_id', sa.Text(), nullable=False),
    sa.Column('signature', sa.Text(), nullable=False, comment='base64'),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.PrimaryKeyConstraint('entry_id', name=op.f('pk_audit_checkpoints'))
    )
    op.create_table('log_records',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('level', sa.SmallInteger(), nullable=False, comment="as in Python's logging: 10, 20, 30, 40, 50"),
    sa.Column('process', sa.Text(), nullable=False),
    sa.Column('event', sa.Text(), nullable=False),
    sa.Column('trace_id', sa.Text(), nullable=True),
    sa.Column('fields', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_log_records'))
    )
    op.create_index('ix_log_records_at_id', 'log_records', ['at', 'id'], unique=False)
    op.create_table('revoked_tokens',
    sa.Column('jti', sa.Text(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False, comment='when the row may go'),
    sa.PrimaryKeyConstraint('jti', name=op.f('pk_revoked_tokens'))
    )
    op.create_index(op.f('ix_revoked_tokens_expires_at'), 'revoked_tokens', ['expires_at'], unique=False)
    op.create_table('roles',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('permissions', sa.ARRAY(sa.Text()), nullable=False),
    sa.Column('description', sa.Text(), server_default='', nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.PrimaryKeyConstraint('name', name=op.f('pk_roles'))
    )
    op.create_table('name_checks',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('asked_by', sa.Uuid(), nullable=True),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('folded', sa.Text(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.Column('confirmed', sa.Boolean(), server_default='false', nullable=False),
    sa.Column('similar', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='the names it was found to be like, and why'),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("outcome IN ('fine', 'warn', 'block')", name=op.f('ck_name_checks_outcome')),
    sa.ForeignKeyConstraint(['asked_by'], ['users.id'], name=op.f('fk_name_checks_asked_by_users'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_name_checks'))
    )
    op.create_table('gates',
    sa.Column('id', sa.Uuid(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('model_id', sa.Uuid(), nullable=True, comment='null: of every model'),
    sa.Column('target', sa.Text(), nullable=False, comment="an alias or a deployment's target; `*`: all"),
    sa.Column('rule', sa.Text(), nullable=False),
    sa.Column('parameters', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('created_by', sa.Uuid(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['created_by'], ['users.id'], name=op.f('fk_gates_created_by_users'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_gates_model_id_models'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_gates'))
    )
    op.create_index(op.f('ix_gates_model_id'), 'gates', ['model_id'], unique=False)
    op.create_table('grants',
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('user_id', sa.Uuid(), nullable=False),
    sa.Column('permission', sa.Text(), nullable=False),
    sa.Column('granted_by', sa.Uuid(), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['granted_by'], ['users.id'], name=op.f('fk_grants_granted_by_users')),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_grants_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_grants_user_id_users'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('model_id', 'user_id', 'permission', name=op.f('pk_grants'))
    )
    op.create_index(op.f('ix_grants_user_id'), 'grants', ['user_id'], unique=False)
    op.create_table('alias_moves',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=True, comment='null: taken away'),
    sa.Column('previous_id', sa.Uuid(), nullable=True, comment='null: it was new'),
    sa.Column('reason', sa.Text(), server_default='', nullable=False),
    sa.Column('moved_by', sa.Uuid(), nullable=True, comment='null: Slipway itself'),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('clock_timestamp()'), nullable=False),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_alias_moves_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['moved_by'], ['users.id'], name=op.f('fk_alias_moves_moved_by_users')),
    sa.ForeignKeyConstraint(['previous_id'], ['versions.id'], name=op.f('fk_alias_moves_previous_id_versions'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_alias_moves_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alias_moves'))
    )
    op.create_index('ix_alias_moves_model_id_name_at', 'alias_moves', ['model_id', 'name', 'at'], unique=False)
    op.create_table('aliases',
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('moved_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_aliases_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_aliases_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('model_id', 'name', name=op.f('pk_aliases'))
    )
    op.create_index(op.f('ix_aliases_version_id'), 'aliases', ['version_id'], unique=False)
    op.create_table('approvals',
    sa.Column('id', sa.Uuid(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('target', sa.Text(), nullable=False),
    sa.Column('approved_by', sa.Uuid(), nullable=False),
    sa.Column('comment', sa.Text(), server_default='', nullable=False),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['approved_by'], ['users.id'], name=op.f('fk_approvals_approved_by_users')),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_approvals_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_approvals'))
    )
    op.create_index(op.f('ix_approvals_version_id'), 'approvals', ['version_id'], unique=False)
    op.create_table('deployments',
    sa.Column('id', sa.Uuid(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('target', sa.Text(), nullable=False),
    sa.Column('status', sa.Text(), server_default='live', nullable=False),
    sa.Column('config', postgresql.JSONB(astext_type=sa.Text()), server_default='{}', nullable=False),
    sa.Column('evidence', postgresql.JSONB(astext_type=sa.Text()), server_default='[]', nullable=False, comment='what each gate said at that time'),
    sa.Column('deployed_by', sa.Uuid(), nullable=False),
    sa.Column('deployed_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('ended_by', sa.Uuid(), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('reason', sa.Text(), nullable=True, comment='why it ended'),
    sa.Column('note', sa.Text(), server_default='', nullable=False, comment='why it was deployed'),
    sa.Column('previous_id', sa.Uuid(), nullable=True, comment='what it took the place of'),
    sa.CheckConstraint("(status = 'live') = (ended_at IS NULL)", name=op.f('ck_deployments_only_live_has_no_end')),
    sa.CheckConstraint("status IN ('live', 'superseded', 'rolled_back', 'ended')", name=op.f('ck_deployments_status')),
    sa.CheckConstraint("target IN ('development', 'staging', 'production')", name=op.f('ck_deployments_target')),
    sa.ForeignKeyConstraint(['deployed_by'], ['users.id'], name=op.f('fk_deployments_deployed_by_users')),
    sa.ForeignKeyConstraint(['ended_by'], ['users.id'], name=op.f('fk_deployments_ended_by_users')),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_deployments_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['previous_id'], ['deployments.id'], name=op.f('fk_deployments_previous_id_deployments'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_deployments_version_id_versions')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_deployments'))
    )
    op.create_index('ix_deployments_model_id_deployed_at', 'deployments', ['model_id', 'deployed_at'], unique=False)
    op.create_index(op.f('ix_deployments_version_id'), 'deployments', ['version_id'], unique=False)
    op.create_index('uq_deployments_live', 'deployments', ['model_id', 'target'], unique=True, postgresql_where=sa.text("status = 'live'"))
    op.create_table('lineage',
    sa.Column('id', sa.Uuid(), server_default=sa.text('gen_random_uuid()'), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('relation', sa.Text(), nullable=False),
    sa.Column('parent_id', sa.Uuid(), nullable=True),
    sa.Column('reference', sa.Text(), nullable=True, comment='a parent that is not here: an address or a name'),
    sa.Column('note', sa.Text(), server_default='', nullable=False),
    sa.Column('created_by', sa.Uuid(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("relation IN ('fine-tuned-from', 'derived-from', 'dataset', 'code')", name=op.f('ck_lineage_relation')),
    sa.CheckConstraint('(parent_id IS NULL) <> (reference IS NULL)', name=op.f('ck_lineage_one_parent')),
    sa.CheckConstraint('parent_id <> version_id', name=op.f('ck_lineage_not_its_own')),
    sa.ForeignKeyConstraint(['created_by'], ['users.id'], name=op.f('fk_lineage_created_by_users'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['parent_id'], ['versions.id'], name=op.f('fk_lineage_parent_id_versions'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_lineage_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_lineage')),
    sa.UniqueConstraint('version_id', 'relation', 'parent_id', name=op.f('uq_lineage_version_id_relation_parent_id')),
    sa.UniqueConstraint('version_id', 'relation', 'reference', name=op.f('uq_lineage_version_id_relation_reference'))
    )
    op.create_index(op.f('ix_lineage_parent_id'), 'lineage', ['parent_id'], unique=False)
    op.create_index(op.f('ix_lineage_version_id'), 'lineage', ['version_id'], unique=False)
    op.create_table('metrics',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=False), nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('value', sa.Double(), nullable=False),
    sa.Column('dataset', sa.Text(), nullable=True),
    sa.Column('at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False, comment='when it was measured'),
    sa.Column('recorded_by', sa.Uuid(), nullable=True, comment='null: Slipway itself'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['recorded_by'], ['users.id'], name=op.f('fk_metrics_recorded_by_users'), ondelete='SET NULL'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_metrics_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_metrics'))
    )
    op.create_index('ix_metrics_version_id_name_at', 'metrics', ['version_id', 'name', 'at'], unique=False)
    op.create_table('ratings',
    sa.Column('model_id', sa.Uuid(), nullable=False),
    sa.Column('user_id', sa.Uuid(), nullable=False),
    sa.Column('score', sa.SmallInteger(), nullable=False),
    sa.Column('review', sa.Text(), server_default='', nullable=False),
    sa.Column('version_id', sa.Uuid(), nullable=True, comment='the one that was rated'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('updated_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('score BETWEEN 1 AND 5', name=op.f('ck_ratings_score')),
    sa.ForeignKeyConstraint(['model_id'], ['models.id'], name=op.f('fk_ratings_model_id_models'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['user_id'], ['users.id'], name=op.f('fk_ratings_user_id_users'), ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_ratings_version_id_versions'), ondelete='SET NULL'),
    sa.PrimaryKeyConstraint('model_id', 'user_id', name=op.f('pk_ratings'))
    )
    op.create_table('signatures',
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('sha256', sa.Text(), nullable=False, comment='of the manifest that is signed'),
    sa.Column('key_id', sa.Text(), nullable=False),
    sa.Column('algorithm', sa.Text(), nullable=False),
    sa.Column('signature', sa.Text(), nullable=False, comment='base64'),
    sa.Column('public_key', sa.Text(), nullable=False, comment='base64, raw'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_signatures_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('version_id', 'sha256', 'key_id', name=op.f('pk_signatures'))
    )
    op.create_table('usage',
    sa.Column('version_id', sa.Uuid(), nullable=False),
    sa.Column('day', sa.Date(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False, comment='download, prediction'),
    sa.Column('count', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('bytes', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('last_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['version_id'], ['versions.id'], name=op.f('fk_usage_version_id_versions'), ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('version_id', 'day', 'kind', name=op.f('pk_usage'))
    )
    op.add_column('api_keys', sa.Column('calls_remaining', sa.BigInteger(), nullable=True, comment='null: as many as one likes'))
    op.add_column('models', sa.Column('card', sa.Text(), nullable=True, comment='Markdown'))
    op.add_column('models', sa.Column('is_active', sa.Boolean(), server_default='true', nullable=False))
    op.add_column('models', sa.Column('protected_aliases', sa.ARRAY(sa.Text()), server_default='{production}', nullable=False))
    op.add_column('models', sa.Column('folded', sa.Text(), nullable=True, comment='the name as eyes read it: names that fold alike are taken for one another'))
    op.add_column('models', sa.Column('revision', sa.Integer(), server_default='1', nullable=False, comment='its ETag'))
    op.add_column('models', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('models', sa.Column('words', postgresql.TSVECTOR(), sa.Computed("setweight(to_tsvector('simple', translate(name, '._+-', '    ')), 'A') || setweight(to_tsvector('simple', description), 'B') || setweight(to_tsvector('simple', coalesce(card, '')), 'C')", persisted=True), nullable=True))
    op.create_index('ix_models_deleted_at', 'models', ['deleted_at'], unique=False, postgresql_where=sa.text('deleted_at IS NOT NULL'))
    op.create_index('ix_models_folded', 'models', ['folded'], unique=False)
    op.create_index('ix_models_tags', 'models', ['tags'], unique=False, postgresql_using='gin')
    op.create_index('ix_models_words', 'models', ['words'], unique=False, postgresql_using='gin')
    fold_names(op.get_bind())
    op.add_column('users', sa.Column('email', sa.Text(), nullable=True))
    op.add_column('users', sa.Column('roles', sa.ARRAY(sa.Text()), server_default='{}', nullable=False, comment='names of roles; what they may adds up'))
    op.add_column('users', sa.Column('plan', sa.Text(), server_default='free', nullable=False, comment='whose limits and quotas count'))
    op.add_column('users', sa.Column('max_models', sa.Integer(), nullable=True, comment='null: as the plan says'))
    op.add_column('users', sa.Column('max_bytes', sa.BigInteger(), nullable=True, comment='null: as the plan says'))
    op.add_column('users', sa.Column('tokens_valid_after', sa.DateTime(timezone=True), nullable=True, comment='bearer tokens issued before count no longer'))
    op.add_column('users', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.create_unique_constraint(op.f('uq_users_email'), 'users', ['email'])
    op.add_column('versions', sa.Column('release_notes', sa.Text(), server_default='', nullable=False))
    op.add_column('versions', sa.Column('revision', sa.Integer(), server_default='1', nullable=False, comment='its ETag'))
    op.add_column('versions', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('versions', sa.Column('deleted_by', sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f('fk_versions_deleted_by_users'), 'versions', 'users', ['deleted_by'], ['id'], ondelete='SET NULL')
    op.execute("""
        INSERT INTO roles (name, permissions, description) VALUES
        ('reader', '{models:read,models:download,models:predict}', 'look, download, predict'),
        ('engineer', '{models:read,models:download,models:predict,models:upload,models:delete,models:deploy}', 'and upload, delete, deploy their own'),
        ('reviewer', '{models:read,models:review}', 'judge what lies in quarantine'),
        ('admin', '{admin}', 'everything')
    """)
    # The version that would have been served so far is the default from now on.
    op.execute("""
        INSERT INTO aliases (model_id, name, version_id)
        SELECT DISTINCT ON (model_id) model_id, 'default', id FROM versions
        WHERE published_at IS NOT NULL AND verdict = 'clean' ORDER BY model_id, published_at DESC
    """)
    op.execute("INSERT INTO alias_moves (model_id, name, version_id, reason) SELECT model_id, name, version_id, 'the newest when aliases came' FROM aliases")
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '% only grows', TG_TABLE_NAME; END $$
    """)
    op.execute("CREATE TRIGGER alias_moves_only_grows BEFORE UPDATE ON alias_moves FOR EACH ROW EXECUTE FUNCTION refuse_change()")
    op.execute(
        "CREATE TRIGGER audit_checkpoints_only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def downgrade() -> None:
    op.execute('DROP TRIGGER audit_checkpoints_only_grow ON audit_checkpoints')
    op.execute('DROP TRIGGER alias_moves_only_grows ON alias_moves')
    op.execute('DROP FUNCTION refuse_change()')
    op.drop_constraint(op.f('fk_versions_deleted_by_users'), 'versions', type_='foreignkey')
    op.drop_column('versions', 'deleted_by')
    op.drop_column('versions', 'deleted_at')
    op.drop_column('versions', 'revision')
    op.drop_column('versions', 'release_notes')
    op.drop_constraint(op.f('uq_users_email'), 'users', type_='unique')
    op.drop_column('users', 'deleted_at')
    op.drop_column('users', 'tokens_valid_after')
    op.drop_column('users', 'max_bytes')
    op.drop_column('users', 'max_models')
    op.drop_column('users', 'plan')
    op.drop_column('users', 'roles')
    op.drop_column('users', 'email')
    op.drop_index('ix_models_words', table_name='models', postgresql_using='gin')
    op.drop_index('ix_models_tags', table_name='models', postgresql_using='gin')
    op.drop_index('ix_models_folded', table_name='models')
    op.drop_index('ix_models_deleted_at', table_name='models', postgresql_where=sa.text('deleted_at IS NOT NULL'))
    op.drop_column('models', 'words')
    op.drop_column('models', 'deleted_at')
    op.drop_column('models', 'revision')
    op.drop_column('models', 'folded')
    op.drop_column('models', 'protected_aliases')
    op.drop_column('models', 'is_active')
    op.drop_column('models', 'card')
    op.drop_column('api_keys', 'calls_remaining')
    op.drop_table('usage')
    op.drop_table('signatures')
    op.drop_table('ratings')
    op.drop_index('ix_metrics_version_id_name_at', table_name='metrics')
    op.drop_table('metrics')
    op.drop_index(op.f('ix_lineage_version_id'), table_name='lineage')
    op.drop_index(op.f('ix_lineage_parent_id'), table_name='lineage')
    op.drop_table('lineage')
    op.drop_index('uq_deployments_live', table_name='deployments', postgresql_where=sa.text("status = 'live'"))
    op.drop_index(op.f('ix_deployments_version_id'), table_name='deployments')
    op.drop_index('ix_deployments_model_id_deployed_at', table_name='deployments')
    op.drop_table('deployments')
    op.drop_index(op.f('ix_approvals_version_id'), table_name='approvals')
    op.drop_table('approvals')
    op.drop_index(op.f('ix_aliases_version_id'), table_name='aliases')
    op.drop_table('aliases')
    op.drop_index('ix_alias_moves_model_id_name_at', table_name='alias_moves')
    op.drop_table('alias_moves')
    op.drop_index(op.f('ix_grants_user_id'), table_name='grants')
    op.drop_table('grants')
    op.drop_index(op.f('ix_gates_model_id'), table_name='gates')
    op.drop_table('gates')
    op.drop_table('name_checks')
    op.drop_table('roles')
    op.drop_index(op.f('ix_revoked_tokens_expires_at'), table_name='revoked_tokens')
    op.drop_table('revoked_tokens')
    op.drop_index('ix_log_records_at_id', table_name='log_records')
    op.drop_table('log_records')
    op.drop_table('audit_checkpoints')
